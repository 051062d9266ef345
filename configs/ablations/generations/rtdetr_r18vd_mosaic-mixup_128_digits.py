"""DEIM's "dense one-to-one" images alone: mosaic and mix-up, from the warm-up's end to half-way."""

_base_ = ['./rtdetr_r18vd_128_digits.py', '../../_base_/datasets/deim_digits.py']

model = dict(data_preprocessor=dict(batch_augments=[_base_.pop('digits_mix_up')]))
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='MultiImageDataset',
        dataset=dict(_base_.train_dataloader.dataset, pipeline=_base_.pop('digits_loading')),
        pipeline=[_base_.pop('digits_mosaic'), *_base_.train_pipeline[2:]],
    )
)
custom_hooks = [
    *_base_.custom_hooks,
    dict(
        type='AugmentationTimetableHook',
        timetable=[('plain', 0), ('mosaic', _base_.warmup_iters), ('plain', _base_.decay_begin)],
        by_epoch=False,
    ),
]
