"""DETR with DEIM's matchability-aware loss, and the costs and sigmoids that go with it."""

_base_ = '../_base_/models/detr_r50_sigmoid.py'

model = dict(bbox_head=dict(loss_cls=dict(_delete_=True, type='MatchabilityAwareLoss', gamma=1.5, loss_weight=1.0)))
