"""ATSS-R50 with RT-DETR's head over the five maps of its FPN, in place of its own head and NMS.

The optimiser is that of mmdet's DINO: at SGD's rate for dense heads, a DETR decoder does not train.
"""

_base_ = 'mmdet::atss/atss_r50_fpn_1x_coco.py'

custom_imports = dict(imports=['mmdet_iouquery'], allow_failed_imports=False)

model = dict(
    bbox_head=dict(
        _delete_=True,
        type='RTDETRHead',
        num_classes=80,
        in_channels=[256] * 5,
        denoising=dict(type='ContrastiveDenoising'),
    ),
    train_cfg=None,
    test_cfg=dict(_delete_=True, max_per_img=300),
)

optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4, weight_decay=1e-4),
    clip_grad=dict(max_norm=0.1, norm_type=2),
    paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.1))),
)
sync_bn = 'torch'  # two images a GPU are few for the batch norms of the head
