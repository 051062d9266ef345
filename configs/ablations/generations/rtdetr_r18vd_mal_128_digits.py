"""DEIM's class loss alone."""

_base_ = './rtdetr_r18vd_128_digits.py'

model = dict(
    bbox_head=dict(criterion=dict(loss_cls=dict(_delete_=True, type='MatchabilityAwareLoss', gamma=1.5))),
)
