"""RetinaNet with HGNetv2-B0 in place of ResNet-50."""

_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'

custom_imports = dict(imports=['mmdet_iouquery'], allow_failed_imports=False)

model = dict(
    backbone=dict(
        _delete_=True,
        type='HGNetv2',
        arch='B0',
        learnable_affine=True,
        frozen_stages=1,
        norm_eval=True,
        init_cfg=dict(
            type='ConvertedPretrained',
            source='hgnetv2_backbone',
            checkpoint='https://github.com/Peterande/storage/releases/download/dfinev1.0/PPHGNetV2_B0_stage1.pth',
        ),
    ),
    neck=dict(in_channels=[64, 256, 512, 1024]),
)
