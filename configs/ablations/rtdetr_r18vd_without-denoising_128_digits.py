"""No denoising queries in training."""

_base_ = './rtdetr_r18vd_128_digits.py'

model = dict(bbox_head=dict(denoising=None))
