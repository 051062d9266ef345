"""RT-DETRv4-L: DEIM on D-FINE-L, taught by DINOv3. 55.4 AP on COCO val2017 by the authors."""

_base_ = ['../deim/deim-dfine_hgnetv2-l_8xb4-58e_coco.py', '../_base_/models/rtdetrv4.py']

model = dict(
    data_preprocessor=dict(
        _base_.pop('distilling'),
        loss_distill=dict(type='CosineFeatureLoss', loss_weight=15.0),
    ),
)
custom_hooks = [
    *_base_.custom_hooks,
    # the weight stays at its default after the first epoch without strong augmentation
    dict(
        _base_.pop('gradient_share'),
        rho=2.0,
        delta=0.1,
        default_weight=15.0,
        default_from=_base_.plain_from + 1,
    ),
]
