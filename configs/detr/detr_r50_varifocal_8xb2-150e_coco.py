"""DETR with the varifocal loss, and the costs and sigmoids that go with it."""

_base_ = '../_base_/models/detr_r50_sigmoid.py'

model = dict(
    bbox_head=dict(loss_cls=dict(_delete_=True, type='IoUVarifocalLoss', alpha=0.75, gamma=2.0, loss_weight=1.0))
)
