"""DEIM on RT-DETRv2: the class loss, the images, SiLU and the rate together."""

_base_ = ['./rtdetr_r18vd_mosaic-mixup_128_digits.py', '../../_base_/models/deim.py']

model = dict(
    bbox_head=dict(
        _base_.deim_rtdetrv2_model.bbox_head,
        init_cfg=dict(type='Xavier', layer='Conv2d', distribution='uniform'),
        decoder=dict(_base_.deim_rtdetrv2_model.bbox_head.decoder, num_points=[4, 4, 4], ffn_init='xavier'),
    ),
)
param_scheduler = [
    dict(
        type='FlatCosineLR',
        by_epoch=False,
        warmup_iters=_base_.warmup_iters,
        flat_end=_base_.decay_begin,
        decay_end=_base_.max_iters,
        gamma=0.02,  # as far down as the others; with an average of the weights the authors stop at 0.5
    )
]
