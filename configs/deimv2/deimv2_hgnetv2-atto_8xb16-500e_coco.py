"""DEIMv2-Atto: the narrowest, 100 queries, 320 x 320, mosaic more seldom. 23.8 AP on COCO val2017 by the authors."""

_base_ = './deimv2_hgnetv2-pico_8xb16-500e_coco.py'

embed_dims = 64
image_scale = (320, 320)

model = dict(
    backbone=dict(arch='Atto'),
    neck=dict(in_channels=[256], out_channels=embed_dims),
    bbox_head=dict(
        in_channels=[embed_dims] * _base_.num_levels,
        embed_dims=embed_dims,
        query_selector=dict(num_queries=100),
        decoder=dict(feedforward_channels=160, query_pos=dict(hidden_dims=embed_dims)),
    ),
)

small_boxes = dict(_base_.small_boxes, min_gt_bbox_wh=(12, 12))
mosaic = [dict(type='QuarterMosaic', short_side=160), _base_.colours]
test_pipeline = [dict(step, scale=image_scale) if step['type'] == 'Resize' else step for step in _base_.test_pipeline]
train_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(
                type='InStages',
                stages=['mosaic'],
                transforms=[dict(type='RandomChoice', transforms=[mosaic, _base_.strong], prob=[0.3, 0.7])],
            ),
            dict(type='InStages', stages=['strong'], transforms=_base_.strong),
            small_boxes,
            dict(type='RandomFlip', prob=0.5),
            dict(type='AntialiasedResize', scale=image_scale, keep_ratio=False),
            small_boxes,
            dict(type='PackDetInputs'),
        ],
    ),
)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
optim_wrapper = dict(
    optimizer=dict(lr=2e-3),
    paramwise_cfg=dict(
        authors_rules=[
            dict(pattern='^backbone', decay=True),
            dict(pattern=r'^neck\.(coarser|downsample)\.1\.norm', decay=True),
            dict(pattern='norm', decay=False),
            dict(pattern='bias$', decay=True),
        ],
    ),
)
