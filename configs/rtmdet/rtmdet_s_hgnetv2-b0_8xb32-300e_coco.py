"""RTMDet-s with HGNetv2-B0 in place of CSPNeXt."""

_base_ = 'mmdet::rtmdet/rtmdet_s_8xb32-300e_coco.py'

custom_imports = dict(imports=['mmdet_iouquery'], allow_failed_imports=False)

model = dict(
    # the weights are of RGB images, CSPNeXt's of BGR
    data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True),
    backbone=dict(
        _delete_=True,
        type='HGNetv2',
        arch='B0',
        learnable_affine=True,
        out_indices=(1, 2, 3),
        norm_cfg=dict(type='SyncBN'),
        init_cfg=dict(
            type='ConvertedPretrained',
            source='hgnetv2_backbone',
            checkpoint='https://github.com/Peterande/storage/releases/download/dfinev1.0/PPHGNetV2_B0_stage1.pth',
        ),
    ),
    neck=dict(in_channels=[256, 512, 1024]),
)
