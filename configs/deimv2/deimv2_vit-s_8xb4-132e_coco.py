"""DEIMv2-S: a ViT-tiny, distilled from DINOv3, with a spatial prior beside it. 50.9 AP by the authors."""

_base_ = [
    '../_base_/models/deimv2.py',
    '../_base_/datasets/coco_detection.py',
    '../_base_/schedules/schedule_72e.py',
    '../_base_/default_runtime.py',
]

max_epochs = 132
mosaic_from, strong_from, plain_from = 4, 64, 120
late_matching_from = 100
multi_scale = [*range(480, 640, 32), *[640] * 20, *range(672, 832, 32)]
embed_dims = 192

model = dict(
    data_preprocessor=dict(
        # of ImageNet, as the ViT is trained
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        batch_augments=[
            _base_.pop('deim_mix_up'),
            dict(type='BatchCopyBlend', prob=0.5, stages=['mosaic', 'strong']),
            dict(type='BatchMultiScale', sizes=multi_scale, stop_epoch=plain_from),
        ],
    ),
    backbone=dict(
        _delete_=True,
        type='ViTAdapter',
        arch='tiny',
        out_indices=(3, 7, 11),
        prior_channels=16,
        out_channels=embed_dims,
        # the authors' file, which README.md links to
        init_cfg=dict(
            type='ConvertedPretrained', source='vit_backbone', part='vit', checkpoint='ckpts/vitt_distill.pt'
        ),
    ),
    neck=dict(
        in_channels=[embed_dims] * 3,
        out_channels=embed_dims,
        feedforward_channels=512,
        expansion=0.34,
        num_fusion_blocks=2,
    ),
    bbox_head=dict(
        in_channels=[embed_dims] * 3,
        embed_dims=embed_dims,
        decoder=dict(num_layers=4, feedforward_channels=512, query_pos=dict(hidden_dims=embed_dims)),
        criterion=dict(assigner=dict(quality_cost=dict(iou_power=4))),
    ),
)
train_dataloader = dict(
    batch_size=4,
    dataset=dict(
        _base_.pop('deim_dataset'),
        dataset=dict(_base_.train_dataloader.dataset, pipeline=_base_.pop('deim_loading')),
    ),
)
train_cfg = dict(max_epochs=max_epochs)
optim_wrapper = dict(
    optimizer=dict(lr=5e-4),
    # the spatial prior and the projections learn at the head's rate
    paramwise_cfg=dict(
        lr_mult=dict(_delete_=True, **{'backbone.vit': 0.05}),
        authors_rules=[dict(pattern=r'^backbone\.(prior\..*norm\.weight|projections\..*norm)', decay=True)],
    ),
)
param_scheduler = [dict(_base_.pop('flat_cosine'), flat_end=strong_from, decay_end=plain_from, gamma=0.5)]
custom_hooks = [
    dict(type='NumClassCheckHook'),
    dict(_base_.ema, gamma=1000),
    dict(
        type='AugmentationTimetableHook',
        timetable=[('plain', 0), ('mosaic', mosaic_from), ('strong', strong_from), ('plain', plain_from)],
    ),
    dict(type='MatchingCostHook', begin=late_matching_from),
]
auto_scale_lr = dict(base_batch_size=32)
