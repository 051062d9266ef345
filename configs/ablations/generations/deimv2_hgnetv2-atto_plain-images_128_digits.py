"""DEIMv2-Atto, on a map of stride 8, of which the neck makes a second one."""

_base_ = './deimv2_hgnetv2-pico_plain-images_128_digits.py'

embed_dims = 64

model = dict(
    backbone=dict(arch='Atto'),
    neck=dict(out_channels=embed_dims),
    bbox_head=dict(
        in_channels=[embed_dims] * _base_.num_levels,
        embed_dims=embed_dims,
        decoder=dict(feedforward_channels=160, query_pos=dict(hidden_dims=embed_dims)),
    ),
)
