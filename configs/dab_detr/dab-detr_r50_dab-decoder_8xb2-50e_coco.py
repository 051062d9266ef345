"""DAB-DETR of this package's parts: learned anchors and the dense anchor-box decoder. The authors' weights fit it."""

_base_ = 'mmdet::dab_detr/dab-detr_r50_8xb2-50e_coco.py'
custom_imports = dict(imports=['mmdet_iouquery'], allow_failed_imports=False)

model = dict(
    type='IoUQueryDABDETR',
    query_selector=dict(type='LearnedAnchors'),
    decoder=dict(_delete_=True, type='DABDecoder', num_layers=6),
)
