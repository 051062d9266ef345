"""RTMDet-s with RT-DETR's hybrid encoder at half width in place of the CSPNeXt PAFPN."""

_base_ = 'mmdet::rtmdet/rtmdet_s_8xb32-300e_coco.py'

custom_imports = dict(imports=['mmdet_iouquery'], allow_failed_imports=False)

model = dict(
    neck=dict(
        _delete_=True,
        type='HybridEncoder',
        in_channels=[128, 256, 512],
        out_channels=128,
        feedforward_channels=512,
        norm_cfg=dict(type='SyncBN'),
    ),
)
