"""DINO whose coarsest backbone map, as the neck projects it, also learns RT-DETR-R50's AIFI. mmdet's own detector."""

_base_ = ['mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py', '../_base_/models/rtdetr_r50vd_teacher.py']
custom_imports = dict(imports=['mmdet_iouquery'], allow_failed_imports=False)

model = dict(
    data_preprocessor=dict(
        _base_.pop('rtdetr_r50vd_teacher'),
        type='DistillingDataPreprocessor',
        student='neck.convs.2',
        student_channels=256,
        loss_distill=dict(type='CosineFeatureLoss', loss_weight=5.0),
    ),
)
