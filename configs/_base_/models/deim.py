"""What DEIM (Huang et al. 2025) changes in D-FINE and RT-DETRv2: the class loss, and SiLU in the decoder.

Bases may not name the same entries, so these have names of their own; a config takes them out with ``_base_.pop``.
"""

silu = dict(type='SiLU')
matchability_aware = dict(criterion=dict(loss_cls=dict(_delete_=True, type='MatchabilityAwareLoss', gamma=1.5)))

deim_dfine_model = dict(
    bbox_head=dict(query_selector=dict(act_cfg=silu), decoder=dict(act_cfg=silu), **matchability_aware),
)
deim_rtdetrv2_model = dict(
    bbox_head=dict(
        query_selector=dict(act_cfg=silu),
        decoder=dict(act_cfg=silu, query_pos=dict(hidden_dims=256, num_layers=3, act_cfg=silu)),
        **matchability_aware,
    ),
)
