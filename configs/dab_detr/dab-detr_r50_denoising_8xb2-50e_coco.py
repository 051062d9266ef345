"""DAB-DETR with denoising, which makes it DN-DETR: five groups, all of them to be restored."""

_base_ = 'mmdet::dab_detr/dab-detr_r50_8xb2-50e_coco.py'
custom_imports = dict(imports=['mmdet_iouquery'], allow_failed_imports=False)

model = dict(
    type='IoUQueryDABDETR',
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
