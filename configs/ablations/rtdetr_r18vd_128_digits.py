"""What the other configs of this folder differ from in one thing: RT-DETR-R18 on the digits, 128 px, 300 steps."""

_base_ = '../quickstart/rtdetr_r18vd_160_digits.py'

image_scale = (128, 128)
max_iters = 300

resize = dict(type='Resize', scale=image_scale, keep_ratio=False, interpolation='bilinear', backend='pillow')
train_pipeline = [
    dict(type='LoadImageFromFile', _scope_='mmdet_iouquery', on_error='skip'),
    dict(type='LoadAnnotations', with_bbox=True),
    resize,
    dict(type='FilterAnnotations', min_gt_bbox_wh=(1, 1), keep_empty=False),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='CheckImage'),
    resize,
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

train_cfg = dict(max_iters=max_iters, val_interval=max_iters // 3)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='LinearLR', start_factor=1.0, end_factor=0.02, by_epoch=False, begin=50, end=max_iters),
]
default_hooks = dict(checkpoint=dict(interval=max_iters // 3))
