"""D-FINE's union matching alone: boxes learn from one matching of all layers."""

_base_ = './rtdetr_r18vd_128_digits.py'

model = dict(bbox_head=dict(criterion=dict(union_matching=True)))
