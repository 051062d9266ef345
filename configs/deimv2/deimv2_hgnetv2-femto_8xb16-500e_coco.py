"""DEIMv2-Femto: one block less than Pico, 150 queries, 416 x 416. 31.0 AP on COCO val2017 by the authors."""

_base_ = './deimv2_hgnetv2-pico_8xb16-500e_coco.py'

embed_dims = 96
image_scale = (416, 416)

model = dict(
    backbone=dict(arch='Femto'),
    neck=dict(out_channels=embed_dims),
    bbox_head=dict(
        in_channels=[embed_dims] * _base_.num_levels,
        embed_dims=embed_dims,
        query_selector=dict(num_queries=150),
        decoder=dict(feedforward_channels=256, query_pos=dict(hidden_dims=embed_dims)),
    ),
)

small_boxes = dict(_base_.small_boxes, min_gt_bbox_wh=(10, 10))
mosaic = [dict(type='QuarterMosaic', short_side=208), _base_.colours]
test_pipeline = [dict(step, scale=image_scale) if step['type'] == 'Resize' else step for step in _base_.test_pipeline]
train_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(
                type='InStages',
                stages=['mosaic'],
                transforms=[dict(type='RandomChoice', transforms=[mosaic, _base_.strong], prob=[0.5, 0.5])],
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
