"""YOLOX-s with RT-DETR's hybrid encoder at half width in place of the YOLOX PAFPN."""

_base_ = 'mmdet::yolox/yolox_s_8xb8-300e_coco.py'

custom_imports = dict(imports=['mmdet_iouquery'], allow_failed_imports=False)

model = dict(
    neck=dict(
        _delete_=True,
        type='HybridEncoder',
        in_channels=[128, 256, 512],
        out_channels=128,
        feedforward_channels=512,
        norm_cfg=dict(type='BN', momentum=0.03, eps=0.001),
    ),
)
