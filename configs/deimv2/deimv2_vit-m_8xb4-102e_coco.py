"""DEIMv2-M: as S, a third wider. 53.0 AP on COCO val2017 by the authors."""

_base_ = './deimv2_vit-s_8xb4-132e_coco.py'

max_epochs = 102
mosaic_from, strong_from, plain_from = 4, 49, 90
late_matching_from = 80
multi_scale = [*range(480, 640, 32), *[640] * 6, *range(672, 832, 32)]
embed_dims = 256

model = dict(
    data_preprocessor=dict(
        batch_augments=[
            *_base_.model.data_preprocessor.batch_augments[:2],
            dict(type='BatchMultiScale', sizes=multi_scale, stop_epoch=plain_from),
        ],
    ),
    backbone=dict(
        arch='tiny+',
        out_channels=embed_dims,
        init_cfg=dict(checkpoint='ckpts/vittplus_distill.pt'),
    ),
    neck=dict(
        in_channels=[embed_dims] * 3,
        out_channels=embed_dims,
        feedforward_channels=512,
        expansion=0.67,
        num_fusion_blocks=3,
    ),
    bbox_head=dict(
        in_channels=[embed_dims] * 3,
        embed_dims=embed_dims,
        decoder=dict(feedforward_channels=512, query_pos=dict(hidden_dims=embed_dims)),
    ),
)
train_cfg = dict(max_epochs=max_epochs)
optim_wrapper = dict(
    paramwise_cfg=dict(lr_mult={'backbone.vit': 0.05}),
)
param_scheduler = [dict(_base_.param_scheduler[0], flat_end=strong_from, decay_end=plain_from)]
custom_hooks = [
    *_base_.custom_hooks[:2],
    dict(
        type='AugmentationTimetableHook',
        timetable=[('plain', 0), ('mosaic', mosaic_from), ('strong', strong_from), ('plain', plain_from)],
    ),
    dict(type='MatchingCostHook', begin=late_matching_from),
]
