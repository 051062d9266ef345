"""DEIMv2-N: two maps of an HGNetv2-B0, D-FINE-N's sizes, at a rate that does not fall. 43.0 AP by the authors."""

_base_ = [
    '../_base_/models/deimv2.py',
    '../_base_/datasets/coco_detection.py',
    '../_base_/schedules/schedule_72e.py',
    '../_base_/default_runtime.py',
]

max_epochs = 160
mosaic_from, strong_from, plain_from = 4, 78, 148
late_matching_from = 136
embed_dims = 128
num_levels = 2

model = dict(
    data_preprocessor=dict(
        batch_augments=[
            _base_.pop('deim_mix_up'),
            dict(type='BatchCopyBlend', prob=0.4, stages=['mosaic']),
        ],
    ),
    backbone=dict(
        arch='B0',
        learnable_affine=True,
        out_indices=(2, 3),
        init_cfg=dict(checkpoint=_base_.pretrained.format('B0')),
    ),
    neck=dict(
        in_channels=[512, 1024],
        out_channels=embed_dims,
        feedforward_channels=512,
        expansion=0.34,
        num_fusion_blocks=2,
        elan_tail=True,
    ),
    bbox_head=dict(
        in_channels=[embed_dims] * num_levels,
        embed_dims=embed_dims,
        decoder=dict(
            num_layers=3,
            feedforward_channels=512,
            num_points=[6, 6],
            query_pos=dict(hidden_dims=embed_dims),
        ),
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
    optimizer=dict(lr=8e-4),
    paramwise_cfg=dict(lr_mult=dict(backbone=0.5), authors_rules=[dict(pattern='^backbone', decay=True)]),
)
param_scheduler = [_base_.pop('flat_cosine')]
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
