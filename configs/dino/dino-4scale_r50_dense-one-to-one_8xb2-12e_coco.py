"""DINO with DEIM's dense one-to-one: mosaics of four images and mixups, for more boxes an image, from epoch 1 to 7."""

_base_ = 'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py'
custom_imports = dict(imports=['mmdet_iouquery'], allow_failed_imports=False)

loading, augmenting = [*_base_.train_pipeline[:2], dict(type='CleanBoxes')], _base_.train_pipeline[2:]
drop_small_boxes = dict(type='FilterAnnotations', min_gt_bbox_wh=(1, 1), keep_empty=False)
mosaic = [dict(type='QuarterMosaic'), drop_small_boxes]
mosaic_or_not = dict(type='RandomChoice', transforms=[mosaic, []], prob=[0.5, 0.5])

model = dict(data_preprocessor=dict(batch_augments=[dict(type='BatchMixUp', prob=0.5, stages=['mosaic'])]))
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='MultiImageDataset',
        dataset=dict(_base_.train_dataloader.dataset, pipeline=loading),
        pipeline=[dict(type='InStages', stages=['mosaic'], transforms=[mosaic_or_not]), *augmenting],
    )
)
custom_hooks = [
    dict(type='AugmentationTimetableHook', timetable=[('plain', 0), ('mosaic', 1), ('plain', 7)]),
    dict(type='ScheduleHook'),
]
