"""RT-DETR-R18 with DEIM's matchability-aware loss. No AP of it is known."""

_base_ = './rtdetr_r18vd_8xb2-72e_coco.py'

model = dict(
    bbox_head=dict(
        criterion=dict(loss_cls=dict(_delete_=True, type='MatchabilityAwareLoss', gamma=1.5, loss_weight=1.0))
    )
)
