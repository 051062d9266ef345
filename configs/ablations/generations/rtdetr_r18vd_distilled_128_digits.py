"""RT-DETRv4's distillation alone: the map of AIFI also learns that of a teacher trained on the same images.

The teacher is what ``iouquery train rtdetr_r50vd_128_digits`` leaves. Another one:
``--cfg-options model.data_preprocessor.teacher.model=CONFIG model.data_preprocessor.teacher.checkpoint=FILE``.
"""

_base_ = './rtdetr_r18vd_128_digits.py'

teacher = 'rtdetr_r50vd_128_digits'

model = dict(
    data_preprocessor=dict(
        type='DistillingDataPreprocessor',
        student='neck.encoder.0',
        student_channels=256,
        teacher=dict(
            type='TeacherFeatures',
            model=f'ablations/generations/{teacher}.py',
            checkpoint=f'work_dirs/{teacher}/iter_{_base_.max_iters}.pth',
            output='neck.encoder.0',
        ),
        teacher_channels=256,
        loss_distill=dict(type='CosineFeatureLoss', loss_weight=5.0),
    ),
)
