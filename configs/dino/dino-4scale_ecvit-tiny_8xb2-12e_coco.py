"""DINO with ECDet-S's ViT in place of ResNet-50."""

_base_ = 'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py'
custom_imports = dict(imports=['mmdet_iouquery'], allow_failed_imports=False)

model = dict(
    backbone=dict(
        _delete_=True,
        type='ViTAdapter',
        arch='ecvit-tiny',
        out_indices=(10, 11),
        tokens='mean',
        norm_eval=True,
        init_cfg=dict(
            type='ConvertedPretrained',
            source='vit_backbone',
            part='vit',
            checkpoint='https://github.com/capsule2077/edgecrafter/releases/download/edgecrafterv1/ecvitt.pth',
        ),
    ),
    neck=dict(in_channels=[192] * 3),
)
