"""RT-DETRv4-X: DEIM on D-FINE-X, taught by DINOv3. 57.0 AP on COCO val2017 by the authors."""

_base_ = ['../deim/deim-dfine_hgnetv2-x_8xb4-58e_coco.py', '../_base_/models/rtdetrv4.py']

model = dict(
    data_preprocessor=dict(
        _base_.pop('distilling'),
        student_channels=384,
        loss_distill=dict(type='CosineFeatureLoss', loss_weight=20.0),
    ),
)
custom_hooks = [
    *_base_.custom_hooks,
    # the weight stays at its default after the first epoch without strong augmentation
    dict(
        _base_.pop('gradient_share'),
        rho=2.0,
        delta=0.25,
        default_weight=20.0,
        default_from=_base_.plain_from + 1,
    ),
]
