"""ECDet-X: a ViT-S with wider feed-forward networks. 57.9 AP on COCO val2017 by the authors."""

_base_ = './ecdet_ecvit-s_8xb4-74e_coco.py'

max_epochs = 50
strong_from, plain_from = 24, 48
prob = 1.0  # of mosaic and of mixup
embed_dims = 256
steps = _base_.train_dataloader.dataset.pipeline

model = dict(
    data_preprocessor=dict(batch_augments=[dict(_base_.model.data_preprocessor.batch_augments[0], prob=prob)]),
    backbone=dict(
        arch='ecvit-s+',
        out_channels=embed_dims,
        project='all',
        init_cfg=dict(checkpoint=_base_.weights.format('ecvitsplus')),
    ),
    neck=dict(
        in_channels=[embed_dims] * 3,
        out_channels=embed_dims,
        feedforward_channels=2048,
        expansion=1.5,
        num_fusion_blocks=3,
    ),
    bbox_head=dict(
        in_channels=[embed_dims] * 3,
        embed_dims=embed_dims,
        decoder=dict(feedforward_channels=2048, query_pos=dict(hidden_dims=embed_dims)),
    ),
)
train_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(steps[0], transforms=[dict(steps[0].transforms[0], prob=[prob, 1 - prob])]),
            *steps[1:],
        ]
    )
)
train_cfg = dict(max_epochs=max_epochs)
optim_wrapper = dict(
    optimizer=dict(weight_decay=1.25e-4),
    paramwise_cfg=dict(lr_mult={'backbone.vit': 0.005}),
)
param_scheduler = [dict(_base_.param_scheduler[0], flat_end=strong_from, decay_end=plain_from)]
custom_hooks = [
    *_base_.custom_hooks[:2],
    dict(type='AugmentationTimetableHook', timetable=[('mosaic', 0), ('strong', strong_from), ('plain', plain_from)]),
]
