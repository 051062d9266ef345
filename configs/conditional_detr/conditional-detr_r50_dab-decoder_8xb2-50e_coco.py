"""Conditional DETR with learned anchors and the anchor-box decoder of DAB-DETR."""

_base_ = 'mmdet::conditional_detr/conditional-detr_r50_8xb2-50e_coco.py'
custom_imports = dict(imports=['mmdet_iouquery'], allow_failed_imports=False)

model = dict(
    type='IoUQueryConditionalDETR',
    query_selector=dict(type='LearnedAnchors'),
    decoder=dict(_delete_=True, type='DABDecoder', num_layers=6),
)
