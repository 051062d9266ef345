"""DEIM on RT-DETRv2 without its images: the class loss, SiLU and the rate."""

_base_ = ['./rtdetrv2_r18vd_128_digits.py', '../../_base_/models/deim.py']

model = dict(bbox_head=_base_.deim_rtdetrv2_model.bbox_head)
param_scheduler = [
    dict(
        type='FlatCosineLR',
        by_epoch=False,
        warmup_iters=_base_.warmup_iters,
        flat_end=_base_.decay_begin,
        decay_end=_base_.max_iters,
        gamma=0.02,  # as far down as the others
    )
]
