"""DEIM's class loss, and half of the queries, whose steps take less time: 900 of them in that of 800."""

_base_ = './rtdetr_r18vd_mal_128_digits.py'

max_iters = 900
warmup_iters = max_iters // 6
decay_begin = max_iters // 2

model = dict(
    bbox_head=dict(query_selector=dict(num_queries=50)),
    test_cfg=dict(max_per_img=50),
)
train_cfg = dict(max_iters=max_iters, val_interval=max_iters // 2)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=warmup_iters),
    dict(type='LinearLR', start_factor=1.0, end_factor=0.02, by_epoch=False, begin=decay_begin, end=max_iters),
]
default_hooks = dict(checkpoint=dict(interval=max_iters // 4))
