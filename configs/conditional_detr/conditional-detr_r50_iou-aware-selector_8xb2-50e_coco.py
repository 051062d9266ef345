"""Conditional DETR whose queries are the encoder's boxes with the best IoU-aware score."""

_base_ = 'mmdet::conditional_detr/conditional-detr_r50_8xb2-50e_coco.py'
custom_imports = dict(imports=['mmdet_iouquery'], allow_failed_imports=False)

model = dict(type='IoUQueryConditionalDETR', query_selector=dict(type='IoUAwareQuerySelector'))
