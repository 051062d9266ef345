"""DDQ-DETR whose queries are ranked by an IoU-aware score before NMS keeps them apart."""

_base_ = 'mmdet::ddq/ddq-detr-4scale_r50_8xb2-12e_coco.py'
custom_imports = dict(imports=['mmdet_iouquery'], allow_failed_imports=False)

model = dict(type='IoUQueryDDQDETR', query_selector=dict(type='IoUAwareQuerySelector'))
