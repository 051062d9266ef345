"""RT-DETR-R50 from scratch on the digits: a teacher for ``rtdetr_r18vd_distilled_128_digits.py``."""

_base_ = './rtdetr_r18vd_128_digits.py'

model = dict(
    backbone=dict(depth=50),
    neck=dict(in_channels=[512, 1024, 2048], expansion=1.0),
)
