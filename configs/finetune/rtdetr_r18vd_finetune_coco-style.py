"""Fine-tuning RT-DETR-R18 from COCO weights on 300 to 10,000 images of your own, on one GPU (docs/fine-tune.md).

    iouquery train rtdetr_r18vd_finetune --data my-set/ --weights rtdetr_r18vd.pth

Data, classes and weights are those of the command; where it names none, those below. For another length change the
numbers on top: an override of max_iters alone would leave the schedule as it is.

Model, losses, augmentation, multi-scale, AdamW and clipping are the paper's recipe. Ours, and tuned on nothing: the
length in iterations, the short warm-up, the cosine decay (the paper keeps its rate), and an EMA with a shorter memory.
The rate is the paper's 1e-4 for 16 images a step, by the linear rule.
"""

_base_ = '../rtdetr/rtdetr_r18vd_8xb2-72e_coco.py'

data_root = 'data/mine/'  # with annotations/train.json, annotations/val.json, train/ and val/
classes = ('cat', 'dog')
load_from = 'mine.pth'

batch_size = 8
max_iters = 4000  # 107 epochs of 300 images; 10,000 images are worth 12,000
val_interval = 500
warmup_iters = max(1, min(200, max_iters // 10))  # shorter than any run
learning_rate = 5e-5  # for batch_size; --auto-scale-lr scales it where there are more GPUs
backbone_lr_mult = 0.1
freeze_backbone = False  # True: for a few hundred images, or to save memory
ema_momentum = 0.001  # of the newest weights: an average over about the last 1,000 steps
ema_gamma = max(1, max_iters // 10)  # steps over which the average grows to that length
# Images with classes that fewer than this part of the images have are repeated, sqrt(threshold / part) times
# (LVIS, Gupta et al. 2019), e.g. 0.1. None: every image once.
oversample_thr = None

model = dict(
    backbone=dict(
        init_cfg=None,  # load_from has the backbone, too
        frozen_stages=4 if freeze_backbone else -1,
        norm_eval=freeze_backbone,
        norm_cfg=dict(requires_grad=not freeze_backbone),
    ),
    bbox_head=dict(num_classes=len(classes)),
)

train_set = dict(
    type='CocoDataset',
    data_root=data_root,
    metainfo=dict(classes=classes),
    ann_file='annotations/train.json',
    data_prefix=dict(img='train/'),
    filter_cfg=dict(filter_empty_gt=False),  # images without boxes stay: they teach what is background
    pipeline=_base_.train_pipeline,
    backend_args=None,
)
if oversample_thr is not None:
    train_set = dict(type='ClassBalancedDataset', oversample_thr=oversample_thr, dataset=train_set)
train_dataloader = dict(
    batch_size=batch_size,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(_delete_=True, **train_set),
)
val_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        metainfo=dict(classes=classes),
        ann_file='annotations/val.json',
        data_prefix=dict(img='val/'),
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/val.json', classwise=True)  # a table of AP by class
test_evaluator = val_evaluator

train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=max_iters, val_interval=val_interval)
optim_wrapper = dict(
    optimizer=dict(lr=learning_rate),
    paramwise_cfg=dict(lr_mult=dict(backbone=backbone_lr_mult)),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=warmup_iters),
    dict(type='CosineAnnealingLR', eta_min_ratio=0.05, by_epoch=False, begin=warmup_iters, end=max_iters),
]
auto_scale_lr = dict(enable=False, base_batch_size=batch_size)
custom_hooks = [
    dict(type='NumClassCheckHook'),
    dict(
        type='EMAHook',
        ema_type='ExpMomentumEMA',
        momentum=ema_momentum,
        gamma=ema_gamma,
        update_buffers=True,
        priority=49,
    ),
]
default_hooks = dict(
    logger=dict(log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=val_interval),
)
log_processor = dict(by_epoch=False)
