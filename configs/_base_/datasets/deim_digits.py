"""DEIM's timetable of images on the digits of ``_base_/rtdetr_r18vd_digits.py``: more boxes up to half-way.

As in ``deim/``, but that digits are neither flipped nor distorted in colour. These names are a config's to take out
with ``_base_.pop``, see ``_base_/models/deim.py``.
"""

digits_mix_up = dict(type='BatchMixUp', prob=0.5, stages=['mosaic'])
digits_loading = [
    dict(type='LoadImageFromFile', _scope_='mmdet_iouquery', on_error='skip'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='CleanBoxes'),
]
digits_mosaic = dict(
    type='InStages',
    stages=['mosaic'],
    transforms=[
        # of an image of 256 px, half of it as in the authors' recipe
        dict(type='RandomApply', transforms=[dict(type='QuarterMosaic', short_side=128)], prob=0.5),
        dict(type='FilterAnnotations', min_gt_bbox_wh=(1, 1), keep_empty=False),
    ],
)
