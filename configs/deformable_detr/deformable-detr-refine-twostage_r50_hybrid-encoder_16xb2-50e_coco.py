"""Two-stage Deformable DETR with RT-DETR's hybrid encoder as neck."""

_base_ = 'mmdet::deformable_detr/deformable-detr-refine-twostage_r50_16xb2-50e_coco.py'
custom_imports = dict(imports=['mmdet_iouquery'], allow_failed_imports=False)

model = dict(
    neck=dict(_delete_=True, type='HybridEncoder', in_channels=[512, 1024, 2048], out_channels=256, num_outs=4)
)
