"""The quickstart's half of the queries and 900 steps with RT-DETR's own class loss, to see what each of them gains."""

_base_ = './rtdetr_r18vd_mal-50-queries_128_digits.py'

model = dict(
    bbox_head=dict(
        criterion=dict(
            loss_cls=dict(_delete_=True, type='IoUVarifocalLoss', alpha=0.75, gamma=2.0, loss_weight=1.0),
        ),
    ),
)
