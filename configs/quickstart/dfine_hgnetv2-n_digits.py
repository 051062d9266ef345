"""D-FINE-N from scratch on small images, in minutes on two CPU cores.

The model is that of ``dfine_hgnetv2-n_8xb16-160e_coco.py`` with fewer queries, on maps of stride 8 and 16 instead of
16 and 32: of images of 128 px those leave 80 tokens, of which 800 steps make 8 AP; on the maps here it reaches 37.
Data and recipe are those of ``_base_/rtdetr_r18vd_digits.py``.
"""

_base_ = '../_base_/rtdetr_r18vd_digits.py'

embed_dims = 128
num_levels = 2

model = dict(
    backbone=dict(_delete_=True, type='HGNetv2', arch='B0', out_indices=(1, 2), learnable_affine=True),
    neck=dict(
        in_channels=[256, 512],
        out_channels=embed_dims,
        feedforward_channels=512,
        expansion=0.34,
        num_fusion_blocks=2,
        fusion='elan',
        downsample='separable',
        lateral_act=False,
    ),
    bbox_head=dict(
        in_channels=[embed_dims] * num_levels,
        embed_dims=embed_dims,
        project='unequal',
        decoder=dict(
            _delete_=True,
            type='DistributionDecoder',
            num_layers=3,
            num_heads=8,
            feedforward_channels=512,
            num_points=[6, 6],
            reg_max=32,
            reg_scale=4.0,
        ),
        criterion=dict(
            union_matching=True,
            loss_fgl=dict(type='FineGrainedLocalizationLoss', loss_weight=0.15),
            loss_ddf=dict(type='DistributionDistillationLoss', loss_weight=1.5, temperature=5.0),
        ),
    ),
)
