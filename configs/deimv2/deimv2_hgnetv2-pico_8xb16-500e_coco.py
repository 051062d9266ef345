"""DEIMv2-Pico: one map of a small HGNetv2, of which the neck makes two, 500 epochs. 38.5 AP on COCO by the authors."""

_base_ = [
    '../_base_/models/deimv2.py',
    '../_base_/datasets/coco_detection.py',
    '../_base_/schedules/schedule_72e.py',
    '../_base_/default_runtime.py',
]

max_epochs = 500
decay_end = 468
mosaic_from, strong_from, plain_from = 4, 250, 400
late_matching_from = 450
embed_dims = 112
num_levels = 2

model = dict(
    backbone=dict(
        arch='Pico',
        learnable_affine=True,
        out_indices=(2,),
        # of B0's weights those that there are here
        init_cfg=dict(checkpoint=_base_.pretrained.format('B0'), partial=True),
    ),
    neck=dict(
        _delete_=True,
        type='LiteEncoder',
        in_channels=[512],
        out_channels=embed_dims,
        expansion=0.34,
        num_fusion_blocks=2,
    ),
    bbox_head=dict(
        in_channels=[embed_dims] * num_levels,
        embed_dims=embed_dims,
        query_selector=dict(num_queries=200),
        decoder=dict(
            num_layers=3,
            feedforward_channels=320,
            num_points=[4, 2],
            fusion='add',
            share_bbox_head=True,
            query_pos=dict(hidden_dims=embed_dims),
        ),
        criterion=dict(
            assigner=dict(quality_cost=dict(iou_power=4)),
            union_matching=False,
            loss_fgl=None,
            loss_ddf=None,
        ),
    ),
)

small_boxes = dict(type='FilterAnnotations', min_gt_bbox_wh=(8, 8), keep_empty=False)
mosaic = [dict(type='QuarterMosaic', short_side=320), _base_.colours]
strong = [_base_.colours, _base_.expand_and_crop]
train_dataloader = dict(
    batch_size=16,
    dataset=dict(
        _delete_=True,
        type='MultiImageDataset',
        dataset=dict(_base_.train_dataloader.dataset, pipeline=_base_.pop('deim_loading')),
        pipeline=[
            dict(
                type='InStages',
                stages=['mosaic'],
                transforms=[dict(type='RandomChoice', transforms=[mosaic, strong], prob=[0.5, 0.5])],
            ),
            dict(type='InStages', stages=['strong'], transforms=strong),
            small_boxes,
            dict(type='RandomFlip', prob=0.5),
            dict(type='AntialiasedResize', scale=(640, 640), keep_ratio=False),
            small_boxes,
            dict(type='PackDetInputs'),
        ],
    ),
)
train_cfg = dict(max_epochs=max_epochs)
optim_wrapper = dict(
    optimizer=dict(lr=1.6e-3),
    paramwise_cfg=dict(
        lr_mult=dict(backbone=0.5),
        authors_rules=[
            dict(pattern='^backbone', decay=True),
            dict(pattern=r'^neck\.(coarser|downsample)\.1\.norm\.weight', decay=True),
        ],
    ),
)
param_scheduler = [
    dict(_base_.pop('flat_cosine'), warmup_iters=4000, flat_end=strong_from, decay_end=decay_end, gamma=0.5)
]
custom_hooks = [
    dict(type='NumClassCheckHook'),
    dict(_base_.ema, gamma=1000),
    dict(
        type='AugmentationTimetableHook',
        timetable=[('plain', 0), ('mosaic', mosaic_from), ('strong', strong_from), ('plain', plain_from)],
    ),
    dict(type='MatchingCostHook', begin=late_matching_from),
]
auto_scale_lr = dict(base_batch_size=128)
