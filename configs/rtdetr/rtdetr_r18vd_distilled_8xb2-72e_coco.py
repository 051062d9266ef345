"""RT-DETR-R18 that also learns the map of RT-DETR-R50's AIFI, by RT-DETRv4's loss. No AP of it is known."""

_base_ = ['./rtdetr_r18vd_8xb2-72e_coco.py', '../_base_/models/rtdetr_r50vd_teacher.py']

model = dict(
    data_preprocessor=dict(
        _base_.pop('rtdetr_r50vd_teacher'),
        type='DistillingDataPreprocessor',
        student='neck.encoder.0',
        student_channels=256,
        loss_distill=dict(type='CosineFeatureLoss', loss_weight=5.0),
    ),
)
