"""DEIMv2 (Huang et al. 2025): D-FINE's parts in a plainer form, trained as DEIM. Sizes change backbone and numbers."""

_base_ = ['./dfine_hgnetv2.py', './deim.py']

model = dict(
    neck=dict(csp='one_conv', elan_tail=False, join='sum', project='unequal'),
    bbox_head=dict(
        query_selector=dict(project=False, act_cfg=_base_.silu),
        decoder=dict(
            norm='RMS',
            ffn='swiglu',
            act_cfg=_base_.silu,
            # made once, by three layers as wide as the decoder: hidden_dims is the sizes' own
            position_code='once',
            query_pos=dict(num_layers=3, num_xavier=3),
        ),
        **_base_.matchability_aware,
    ),
)
