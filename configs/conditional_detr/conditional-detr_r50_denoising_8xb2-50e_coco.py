"""Conditional DETR with the denoising of DN-DETR."""

_base_ = 'mmdet::conditional_detr/conditional-detr_r50_8xb2-50e_coco.py'
custom_imports = dict(imports=['mmdet_iouquery'], allow_failed_imports=False)

model = dict(
    type='IoUQueryConditionalDETR',
    denoising=dict(
        type='ContrastiveDenoising',
        num_denoising=100,
        contrastive=False,
        num_groups=5,
        label_noise_ratio=0.4,
        box_noise_scale=0.4,
        box_noise='centre_size',
    ),
)
