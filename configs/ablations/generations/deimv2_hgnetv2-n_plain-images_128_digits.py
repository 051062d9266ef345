"""DEIMv2-N, on maps of stride 8 and 16: plainer layers than D-FINE-N's, and DEIM's class loss and rate."""

_base_ = ['../../quickstart/dfine_hgnetv2-n_digits.py', '../../_base_/models/deim.py']

model = dict(
    neck=dict(csp='one_conv', join='sum', project='unequal'),
    bbox_head=dict(
        query_selector=dict(project=False, act_cfg=_base_.silu),
        decoder=dict(
            norm='RMS',
            ffn='swiglu',
            act_cfg=_base_.silu,
            position_code='once',
            query_pos=dict(hidden_dims=_base_.embed_dims, num_layers=3, num_xavier=3),
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
        gamma=0.02,  # as far down as the others; the authors do not let it fall, but average the weights
    )
]
