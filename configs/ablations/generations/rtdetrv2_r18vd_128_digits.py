"""RT-DETRv2: on one map size and from scratch it differs by its first weights alone."""

_base_ = './rtdetr_r18vd_128_digits.py'

model = dict(
    bbox_head=dict(
        init_cfg=dict(type='Xavier', layer='Conv2d', distribution='uniform'),
        decoder=dict(num_points=[4, 4, 4], ffn_init='xavier'),
    ),
)
