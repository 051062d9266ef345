"""DDQ-DETR with RT-DETR's hybrid encoder as neck."""

_base_ = 'mmdet::ddq/ddq-detr-4scale_r50_8xb2-12e_coco.py'
custom_imports = dict(imports=['mmdet_iouquery'], allow_failed_imports=False)

model = dict(
    type='IoUQueryDDQDETR',
    neck=dict(_delete_=True, type='HybridEncoder', in_channels=[512, 1024, 2048], out_channels=256, num_outs=4),
)
