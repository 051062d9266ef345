"""RT-DETRv4-S: DEIM on D-FINE-S, taught by DINOv3. 49.8 AP on COCO val2017 by the authors."""

_base_ = ['../deim/deim-dfine_hgnetv2-s_8xb4-132e_coco.py', '../_base_/models/rtdetrv4.py']

model = dict(
    data_preprocessor=dict(
        _base_.pop('distilling'),
        loss_distill=dict(type='CosineFeatureLoss', loss_weight=5.0),
    ),
)
custom_hooks = [
    *_base_.custom_hooks,
    # the weight stays at its default after the first epoch without strong augmentation
    dict(
        _base_.pop('gradient_share'),
        rho=11.0,
        delta=1.0,
        default_weight=20.0,
        default_from=_base_.plain_from + 1,
    ),
]
