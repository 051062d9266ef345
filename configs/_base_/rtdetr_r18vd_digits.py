"""RT-DETR-R18 from scratch on small images, in minutes on two CPU cores: what the configs for the digits start from.

The model is that of ``rtdetr_r18vd_8xb2-72e_coco.py`` with fewer queries; the recipe is for a small set and a short
run. Its rate is held until half-way: one that falls from the warm-up on learns less in these steps, whether it
begins lower (6e-4) or higher (1.2e-3).
"""

_base_ = '../rtdetr/rtdetr_r18vd_8xb2-72e_coco.py'

data_root = 'data/digits/'
classes = tuple('0123456789')
image_scale = (128, 128)
max_iters = 800
warmup_iters = max_iters // 6
decay_begin = max_iters // 2
learning_rate = 8e-4

model = dict(
    data_preprocessor=dict(batch_augments=None),
    backbone=dict(init_cfg=None),
    bbox_head=dict(
        num_classes=len(classes),
        query_selector=dict(num_queries=100),
        denoising=dict(num_denoising=30),
    ),
    test_cfg=dict(max_per_img=100),
)

resize = dict(type='Resize', scale=image_scale, keep_ratio=False, interpolation='bilinear', backend='pillow')
train_pipeline = [
    dict(type='LoadImageFromFile', _scope_='mmdet_iouquery', on_error='skip'),
    dict(type='LoadAnnotations', with_bbox=True),
    resize,
    dict(type='FilterAnnotations', min_gt_bbox_wh=(1, 1), keep_empty=False),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile', _scope_='mmdet_iouquery'),
    resize,
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        data_root=data_root,
        metainfo=dict(classes=classes),
        ann_file='annotations/train.json',
        data_prefix=dict(img='train/'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=4,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        data_root=data_root,
        metainfo=dict(classes=classes),
        ann_file='annotations/val.json',
        data_prefix=dict(img='val/'),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/val.json')
test_evaluator = val_evaluator

train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=max_iters, val_interval=max_iters // 2)
optim_wrapper = dict(
    optimizer=dict(lr=learning_rate),
    paramwise_cfg=dict(lr_mult=dict(backbone=1.0)),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=warmup_iters),
    dict(type='LinearLR', start_factor=1.0, end_factor=0.02, by_epoch=False, begin=decay_begin, end=max_iters),
]
default_hooks = dict(
    # by_epoch would put every validation at step 0 of TensorBoard's curves: there are no epochs here
    logger=dict(interval=100, log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=max_iters // 4, max_keep_ckpts=2),
    # on CPUs, the same in less time
    accelerate=dict(type='AccelerateTrainingHook'),
)
custom_hooks = [dict(type='NumClassCheckHook'), dict(type='ProgressHook')]
log_processor = dict(by_epoch=False)
randomness = dict(seed=0)
