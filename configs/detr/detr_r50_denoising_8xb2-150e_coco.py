"""DETR with the denoising of DN-DETR."""

_base_ = '../_base_/models/detr_r50_sigmoid.py'

model = dict(
    type='IoUQueryDETR',
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
