"""DDQ-DETR with DEIM's matchability-aware loss, to which the adapter hands the IoU that mmdet's own head does not."""

_base_ = 'mmdet::ddq/ddq-detr-4scale_r50_8xb2-12e_coco.py'
custom_imports = dict(imports=['mmdet_iouquery'], allow_failed_imports=False)

model = dict(
    type='IoUQueryDDQDETR',
    bbox_head=dict(loss_cls=dict(_delete_=True, type='MatchabilityAwareLoss', gamma=1.5, loss_weight=1.0)),
)
