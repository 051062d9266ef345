"""DINO with HGNetv2-B4 in place of ResNet-50."""

_base_ = 'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py'
custom_imports = dict(imports=['mmdet_iouquery'], allow_failed_imports=False)

model = dict(
    backbone=dict(
        _delete_=True,
        type='HGNetv2',
        arch='B4',
        out_indices=(1, 2, 3),
        frozen_stages=1,
        norm_cfg=dict(type='BN', requires_grad=False),
        norm_eval=True,
        init_cfg=dict(
            type='ConvertedPretrained',
            source='hgnetv2_backbone',
            checkpoint='https://github.com/Peterande/storage/releases/download/dfinev1.0/PPHGNetV2_B4_stage1.pth',
        ),
    ),
    neck=dict(in_channels=[512, 1024, 2048]),
)
