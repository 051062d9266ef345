"""mmdet's own DINO with more boxes an image in the first eight epochs: DEIM's mosaic and mixup."""

_base_ = 'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py'
custom_imports = dict(imports=['mmdet_iouquery'], allow_failed_imports=False)

mosaic = dict(type='RandomApply', prob=0.5, transforms=[dict(type='QuarterMosaic')])

model = dict(data_preprocessor=dict(batch_augments=[dict(type='BatchMixUp', stages=['mosaic'])]))
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='MultiImageDataset',
        dataset=dict(_base_.train_dataloader.dataset, pipeline=_base_.train_pipeline[:2]),
        pipeline=[dict(type='InStages', stages=['mosaic'], transforms=[mosaic]), *_base_.train_pipeline[2:]],
    )
)
custom_hooks = [dict(type='AugmentationTimetableHook', timetable=[('mosaic', 0), ('plain', 8)])]
