"""RT-DETR-R18 with DEIM's class loss, from scratch, in minutes on two CPU cores: what ``make quickstart`` trains.

Half of the queries, which are still many more than an image has digits, make 900 steps as long as 800 would be. By
both together it finds more in the same time (docs/ablations.md).
"""

_base_ = '../_base_/rtdetr_r18vd_digits.py'

max_iters = 900
warmup_iters = max_iters // 6
decay_begin = max_iters // 2
num_queries = 50

model = dict(
    bbox_head=dict(
        query_selector=dict(num_queries=num_queries),
        criterion=dict(loss_cls=dict(_delete_=True, type='MatchabilityAwareLoss', gamma=1.5)),
    ),
    test_cfg=dict(max_per_img=num_queries),
)
train_cfg = dict(max_iters=max_iters, val_interval=max_iters // 2)
param_scheduler = [
    dict(_base_.param_scheduler[0], end=warmup_iters),
    dict(_base_.param_scheduler[1], begin=decay_begin, end=max_iters),
]
default_hooks = dict(checkpoint=dict(interval=max_iters // 4))
