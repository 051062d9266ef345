"""COCO 2017 as RT-DETR sees it: 640x640 by plain resize, 0-1 RGB (scaled in the data preprocessor)."""

dataset_type = 'CocoDataset'
data_root = 'data/coco/'
backend_args = None
image_scale = (640, 640)

# antialiased, as the authors' pipeline resizes
resize = dict(type='Resize', scale=image_scale, keep_ratio=False, interpolation='bilinear', backend='pillow')
drop_small_boxes = dict(type='FilterAnnotations', min_gt_bbox_wh=(1, 1), keep_empty=False)

train_pipeline = [
    # the scope makes it this package's loader, which does not use damaged images; training leaves them out
    dict(type='LoadImageFromFile', _scope_='mmdet_iouquery', on_error='skip', backend_args=backend_args),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='CleanBoxes'),
    # what mmdet's PhotoMetricDistortion, Expand, RandomApply(MinIoURandomCrop) and Resize do with equal seeds, faster
    dict(type='DistortColours'),
    dict(type='ExpandAndCrop', ratio_range=(1, 4), expand_prob=0.5, crop_prob=0.8),
    drop_small_boxes,
    dict(type='RandomFlip', prob=0.5),
    dict(type='AntialiasedResize', scale=image_scale, keep_ratio=False),
    drop_small_boxes,
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile', _scope_='mmdet_iouquery', backend_args=backend_args),
    resize,
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]

train_dataloader = dict(
    batch_size=2,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    batch_sampler=dict(type='SeededBatchSampler', drop_last=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='annotations/instances_train2017.json',
        data_prefix=dict(img='train2017/'),
        # images without boxes teach what is background; the authors keep them too
        filter_cfg=dict(filter_empty_gt=False),
        pipeline=train_pipeline,
        backend_args=backend_args,
    ),
)
val_dataloader = dict(
    batch_size=4,
    num_workers=4,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='annotations/instances_val2017.json',
        data_prefix=dict(img='val2017/'),
        test_mode=True,
        pipeline=test_pipeline,
        backend_args=backend_args,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(
    type='CocoMetric',
    ann_file=data_root + 'annotations/instances_val2017.json',
    metric='bbox',
    format_only=False,
    backend_args=backend_args,
)
test_evaluator = val_evaluator
