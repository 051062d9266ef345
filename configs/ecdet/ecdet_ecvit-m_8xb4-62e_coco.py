"""ECDet-M: as S, a third wider. 54.3 AP on COCO val2017 by the authors."""

_base_ = './ecdet_ecvit-s_8xb4-74e_coco.py'

max_epochs = 62
strong_from, plain_from = 30, 60
embed_dims = 256

model = dict(
    backbone=dict(
        arch='ecvit-tiny+',
        init_cfg=dict(checkpoint=_base_.weights.format('ecvittplus')),
    ),
    neck=dict(
        in_channels=[embed_dims] * 3,
        out_channels=embed_dims,
        feedforward_channels=512,
        expansion=0.75,
        num_fusion_blocks=2,
    ),
    bbox_head=dict(
        in_channels=[embed_dims] * 3,
        embed_dims=embed_dims,
        decoder=dict(feedforward_channels=1024, query_pos=dict(hidden_dims=embed_dims)),
    ),
)
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [dict(_base_.param_scheduler[0], flat_end=strong_from, decay_end=plain_from)]
custom_hooks = [
    *_base_.custom_hooks[:2],
    dict(type='AugmentationTimetableHook', timetable=[('mosaic', 0), ('strong', strong_from), ('plain', plain_from)]),
]
