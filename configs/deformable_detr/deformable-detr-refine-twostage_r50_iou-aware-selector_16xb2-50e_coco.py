"""Two-stage Deformable DETR whose queries are chosen by an IoU-aware score."""

_base_ = 'mmdet::deformable_detr/deformable-detr-refine-twostage_r50_16xb2-50e_coco.py'
custom_imports = dict(imports=['mmdet_iouquery'], allow_failed_imports=False)

model = dict(type='IoUQueryDeformableDETR', query_selector=dict(type='IoUAwareQuerySelector'))
