"""DINO with DEIMv2's copy-blend: from epoch 1 to 11, images of half of the batches get three objects each."""

_base_ = 'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py'
custom_imports = dict(imports=['mmdet_iouquery'], allow_failed_imports=False)

model = dict(data_preprocessor=dict(batch_augments=[dict(type='BatchCopyBlend', prob=0.5, stages=['strong'])]))
custom_hooks = [
    dict(type='AugmentationTimetableHook', timetable=[('plain', 0), ('strong', 1), ('plain', 11)]),
    dict(type='ScheduleHook'),
]
