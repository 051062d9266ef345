"""DEIM on D-FINE-S. 49.0 AP on COCO val2017 by the authors."""

_base_ = ['../dfine/dfine_hgnetv2-s_8xb4-132e_coco.py', '../_base_/models/deim.py']

max_epochs = 132
mosaic_from, strong_from, plain_from = 4, 64, 120

model = dict(
    _base_.pop('deim_dfine_model'),
    data_preprocessor=dict(
        batch_augments=[
            _base_.pop('deim_mix_up'),
            dict(type='BatchMultiScale', sizes=_base_.multi_scale, stop_epoch=plain_from),
        ],
    ),
)
train_dataloader = dict(
    dataset=dict(
        _base_.pop('deim_dataset'),
        dataset=dict(_base_.train_dataloader.dataset, pipeline=_base_.pop('deim_loading')),
    )
)
train_cfg = dict(max_epochs=max_epochs)
optim_wrapper = dict(
    optimizer=dict(lr=0.0004),
    paramwise_cfg=dict(authors_rules=_base_.pop('deim_dfine_authors_rules')),
)
param_scheduler = [dict(_base_.pop('flat_cosine'), flat_end=strong_from, decay_end=plain_from, gamma=0.5)]
custom_hooks = [
    *_base_.custom_hooks[:2],
    dict(
        type='AugmentationTimetableHook',
        timetable=[('plain', 0), ('mosaic', mosaic_from), ('strong', strong_from), ('plain', plain_from)],
    ),
]
