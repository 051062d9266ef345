"""The authors' RT-DETR-R50, 53.1 AP on COCO, as a teacher: the map that its AIFI gives, 256 channels of stride 32.

Bases may not name the same entries, so it has a name of its own; a config takes it out with ``_base_.pop``. Of another
teacher, ``model`` is a config's path or name, ``checkpoint`` its file, and ``source`` 'mmdet' if it was trained here.
"""

rtdetr_r50vd_teacher = dict(
    teacher=dict(
        type='TeacherFeatures',
        model='rtdetr/rtdetr_r50vd_8xb2-72e_coco.py',
        checkpoint='https://github.com/lyuwenyu/storage/releases/download/v0.1/rtdetr_r50vd_6x_coco_from_paddle.pth',
        source='rtdetr',
        output='neck.encoder.0',
    ),
    teacher_channels=256,
)
