"""What the other configs of this folder differ from in one thing: RT-DETR by the digits' recipe, for 300 steps."""

_base_ = '../_base_/rtdetr_r18vd_digits.py'

max_iters = 300

train_cfg = dict(max_iters=max_iters, val_interval=max_iters // 3)
param_scheduler = [
    dict(_base_.param_scheduler[0], end=max_iters // 6),
    dict(_base_.param_scheduler[1], begin=max_iters // 2, end=max_iters),
]
default_hooks = dict(checkpoint=dict(interval=max_iters // 3))
