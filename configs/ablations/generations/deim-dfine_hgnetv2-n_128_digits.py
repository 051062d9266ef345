"""DEIM on D-FINE-N: the class loss, the images, SiLU and the rate together."""

_base_ = ['./dfine_hgnetv2-n_128_digits.py', '../../_base_/datasets/deim_digits.py', '../../_base_/models/deim.py']

model = dict(
    data_preprocessor=dict(batch_augments=[_base_.pop('digits_mix_up')]),
    bbox_head=_base_.deim_dfine_model.bbox_head,
)
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='MultiImageDataset',
        dataset=dict(_base_.train_dataloader.dataset, pipeline=_base_.pop('digits_loading')),
        pipeline=[_base_.pop('digits_mosaic'), *_base_.train_pipeline[2:]],
    )
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
custom_hooks = [
    *_base_.custom_hooks,
    dict(
        type='AugmentationTimetableHook',
        timetable=[('plain', 0), ('mosaic', _base_.warmup_iters), ('plain', _base_.decay_begin)],
        by_epoch=False,
    ),
]
