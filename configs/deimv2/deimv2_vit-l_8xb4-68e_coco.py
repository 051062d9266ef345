"""DEIMv2-L: DINOv3's ViT-S in place of the ViT-tiny. 56.0 AP on COCO val2017 by the authors."""

_base_ = './deimv2_vit-s_8xb4-132e_coco.py'

max_epochs = 68
mosaic_from, strong_from, plain_from = 4, 34, 60
late_matching_from = 50
multi_scale = [*range(480, 640, 32), *[640] * 3, *range(672, 832, 32)]
embed_dims = 224

model = dict(
    data_preprocessor=dict(
        batch_augments=[
            *_base_.model.data_preprocessor.batch_augments[:2],
            dict(type='BatchMultiScale', sizes=multi_scale, stop_epoch=plain_from),
        ],
    ),
    backbone=dict(
        arch='dinov3-s',
        out_indices=(5, 8, 11),
        prior_channels=32,
        out_channels=embed_dims,
        init_cfg=dict(checkpoint='ckpts/dinov3_vits16_pretrain_lvd1689m-08c60483.pth'),
    ),
    neck=dict(
        in_channels=[embed_dims] * 3,
        out_channels=embed_dims,
        feedforward_channels=896,
        expansion=1.0,
        num_fusion_blocks=3,
    ),
    bbox_head=dict(
        in_channels=[embed_dims] * 3,
        embed_dims=embed_dims,
        decoder=dict(feedforward_channels=1792, query_pos=dict(hidden_dims=embed_dims)),
    ),
)
train_cfg = dict(max_epochs=max_epochs)
optim_wrapper = dict(
    optimizer=dict(weight_decay=1.25e-4),
    paramwise_cfg=dict(lr_mult={'backbone.vit': 0.025}),
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
