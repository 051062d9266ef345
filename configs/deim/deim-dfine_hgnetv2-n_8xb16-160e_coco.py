"""DEIM on D-FINE-N, at a rate that does not fall. 43.0 AP on COCO val2017 by the authors."""

_base_ = ['../dfine/dfine_hgnetv2-n_8xb16-160e_coco.py', '../_base_/models/deim.py']

max_epochs = 160
mosaic_from, strong_from, plain_from = 4, 78, 148

model = dict(
    _base_.pop('deim_dfine_model'),
    data_preprocessor=dict(
        batch_augments=[_base_.pop('deim_mix_up')],
    ),
)
train_dataloader = dict(
    dataset=dict(
        _base_.pop('deim_dataset'),
        dataset=dict(_base_.train_dataloader.dataset, pipeline=_base_.pop('deim_loading')),
    )
)
train_cfg = dict(max_epochs=max_epochs)
optim_wrapper = dict(optimizer=dict(lr=0.0008))
param_scheduler = [_base_.pop('flat_cosine')]
custom_hooks = [
    *_base_.custom_hooks[:2],
    dict(
        type='AugmentationTimetableHook',
        timetable=[('plain', 0), ('mosaic', mosaic_from), ('strong', strong_from), ('plain', plain_from)],
    ),
]
