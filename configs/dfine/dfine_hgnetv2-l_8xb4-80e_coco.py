"""D-FINE-L: 54.0 AP on COCO val2017 by the authors."""

_base_ = [
    '../_base_/models/dfine_hgnetv2.py',
    '../_base_/datasets/coco_detection.py',
    '../_base_/schedules/schedule_72e.py',
    '../_base_/default_runtime.py',
]

max_epochs = 80
stop_epoch = 72  # from here on neither colours, expansion and crop nor multi-scale
multi_scale = [*range(480, 640, 32), *[640] * 4, *range(672, 832, 32)]
plain_pipeline = [step for step in _base_.train_pipeline if step['type'] not in ('DistortColours', 'ExpandAndCrop')]

model = dict(
    data_preprocessor=dict(
        batch_augments=[dict(type='BatchMultiScale', sizes=multi_scale, stop_epoch=stop_epoch)],
    ),
    backbone=dict(frozen_stages=0, norm_cfg=dict(type='BN', requires_grad=False), norm_eval=True),
)
train_dataloader = dict(batch_size=4)
train_cfg = dict(max_epochs=max_epochs)
optim_wrapper = dict(
    optimizer=dict(lr=2.5e-4, weight_decay=1.25e-4),
    paramwise_cfg=dict(
        lr_mult=dict(backbone=0.05),
        authors_rules=[dict(pattern='^backbone', decay=True), dict(pattern='^(?!.*norm).*bias$', decay=True)],
    ),
)
param_scheduler = [dict(type='LinearLR', start_factor=0.002, by_epoch=False, begin=0, end=500)]
custom_hooks = [
    dict(type='NumClassCheckHook'),
    dict(_base_.ema, gamma=1000),
    dict(type='PipelineSwitchHook', switch_epoch=stop_epoch, switch_pipeline=plain_pipeline),
]
auto_scale_lr = dict(base_batch_size=32)
