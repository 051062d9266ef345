"""D-FINE-S."""

_base_ = './rtdetr_r18vd_distribution-decoder_128_digits.py'

model = dict(
    backbone=dict(_delete_=True, type='HGNetv2', arch='B0', out_indices=(1, 2, 3), learnable_affine=True),
    neck=dict(
        in_channels=[256, 512, 1024],
        num_fusion_blocks=1,
        fusion='elan',
        downsample='separable',
        lateral_act=False,
    ),
    bbox_head=dict(project='unequal', criterion=dict(union_matching=True)),
)
