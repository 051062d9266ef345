"""DINO whose queries are chosen by an IoU-aware score, content and anchors from the encoder."""

_base_ = 'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py'
custom_imports = dict(imports=['mmdet_iouquery'], allow_failed_imports=False)

model = dict(type='IoUQueryDINO', query_selector=dict(type='IoUAwareQuerySelector'))
