"""What RT-DETRv4 adds to DEIM on D-FINE, in training alone: AIFI's map learns to be DINOv3's (ViT-B/16, 768 channels).

Bases may not name the same entries, so these have names of their own; a config takes them out with ``_base_.pop``.
"""

# from https://ai.meta.com/resources/models-and-libraries/dinov3-downloads/, under the terms that stand there
dinov3_weights = 'pretrained/dinov3_vitb16_pretrain_lvd1689m.pth'
dinov3_vitb16 = dict(
    backbone=dict(
        type='VisionTransformer',
        arch='dinov3-b',
        init_cfg=dict(type='ConvertedPretrained', source='vit_backbone', checkpoint=dinov3_weights),
    ),
    data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True),
)
distilling = dict(
    type='DistillingDataPreprocessor',
    student='neck.encoder.0',
    student_channels=256,
    # patches of 16 px of images of half the size: its map has stride 32, as the student's
    teacher=dict(type='TeacherFeatures', model=dinov3_vitb16, shrink=2),
    teacher_channels=768,
)
gradient_share = dict(type='GradientShareHook', module='neck.encoder')
