"""What the other configs of this folder differ from in one thing: the quickstart's, at 128 px for 300 steps."""

_base_ = '../quickstart/rtdetr_r18vd_160_digits.py'

image_scale = (128, 128)
max_iters = 300

resize = dict(_base_.resize, scale=image_scale)
train_pipeline = [resize if step.type == 'Resize' else step for step in _base_.train_pipeline]
test_pipeline = [resize if step.type == 'Resize' else step for step in _base_.test_pipeline]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

train_cfg = dict(max_iters=max_iters, val_interval=max_iters // 3)
param_scheduler = [
    dict(_base_.param_scheduler[0], end=max_iters // 6),
    dict(_base_.param_scheduler[1], begin=max_iters // 2, end=max_iters),
]
default_hooks = dict(checkpoint=dict(interval=max_iters // 3))
