"""DAB-DETR whose anchors are the encoder's boxes with the best IoU-aware score, not learned ones."""

_base_ = 'mmdet::dab_detr/dab-detr_r50_8xb2-50e_coco.py'
custom_imports = dict(imports=['mmdet_iouquery'], allow_failed_imports=False)

model = dict(type='IoUQueryDABDETR', query_selector=dict(type='IoUAwareQuerySelector'))
