"""DEIMv2-Pico, on a map of stride 8, of which the neck makes a second one."""

_base_ = './deimv2_hgnetv2-n_plain-images_128_digits.py'

embed_dims = 112

model = dict(
    backbone=dict(arch='Pico', out_indices=(1,)),
    neck=dict(
        _delete_=True,
        type='LiteEncoder',
        in_channels=[256],
        out_channels=embed_dims,
        expansion=0.34,
        num_fusion_blocks=2,
    ),
    bbox_head=dict(
        in_channels=[embed_dims] * _base_.num_levels,
        embed_dims=embed_dims,
        decoder=dict(
            feedforward_channels=320,
            num_points=[4, 2],
            fusion='add',
            share_bbox_head=True,
            query_pos=dict(hidden_dims=embed_dims),
        ),
        criterion=dict(union_matching=False, loss_fgl=None, loss_ddf=None),
    ),
)
