"""DEIMv2-S from scratch: a ViT with a spatial prior beside it, DEIMv2-N's layers, and DEIM's class loss and rate."""

_base_ = ['./dfine_hgnetv2-s_128_digits.py', '../../_base_/models/deim.py']

embed_dims = 192

model = dict(
    backbone=dict(
        _delete_=True,
        type='ViTAdapter',
        arch='tiny',
        out_indices=(3, 7, 11),
        prior_channels=16,
        out_channels=embed_dims,
    ),
    neck=dict(
        in_channels=[embed_dims] * 3,
        out_channels=embed_dims,
        feedforward_channels=512,
        expansion=0.34,
        num_fusion_blocks=2,
        csp='one_conv',
        elan_tail=False,
        join='sum',
        project='unequal',
    ),
    bbox_head=dict(
        in_channels=[embed_dims] * 3,
        embed_dims=embed_dims,
        query_selector=dict(project=False, act_cfg=_base_.silu),
        decoder=dict(
            num_layers=4,
            norm='RMS',
            ffn='swiglu',
            feedforward_channels=512,
            act_cfg=_base_.silu,
            position_code='once',
            query_pos=dict(hidden_dims=embed_dims, num_layers=3, num_xavier=3),
        ),
        **_base_.matchability_aware,
    ),
)
param_scheduler = [
    dict(
        type='FlatCosineLR',
        by_epoch=False,
        warmup_iters=_base_.warmup_iters,
        flat_end=_base_.decay_begin,
        decay_end=_base_.max_iters,
        gamma=0.02,
    )
]
