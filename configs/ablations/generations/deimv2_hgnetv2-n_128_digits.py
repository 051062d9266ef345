"""All of DEIMv2-N: its layers and class loss, mosaic, mix-up and copy-blend, and the late cost of matching."""

_base_ = ['./deimv2_hgnetv2-n_plain-images_128_digits.py', '../../_base_/datasets/deim_digits.py']

late_matching_from = _base_.max_iters * 136 // 160  # as in the authors' 160 epochs

model = dict(
    data_preprocessor=dict(
        batch_augments=[_base_.pop('digits_mix_up'), dict(type='BatchCopyBlend', prob=0.4, stages=['mosaic'])]
    ),
    bbox_head=dict(criterion=dict(assigner=dict(quality_cost=dict(iou_power=4)))),
)
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
    dict(type='MatchingCostHook', begin=late_matching_from, by_epoch=False),
]
