"""RT-DETRv4-M: DEIM on D-FINE-M, taught by DINOv3. 53.7 AP on COCO val2017 by the authors."""

_base_ = ['../deim/deim-dfine_hgnetv2-m_8xb4-102e_coco.py', '../_base_/models/rtdetrv4.py']

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
        rho=3.5,
        delta=0.25,
        default_weight=15.0,
        default_from=_base_.plain_from + 1,
    ),
]
