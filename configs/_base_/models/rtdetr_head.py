"""RT-DETR's head in place of a dense detector's own head and NMS, and the optimiser that a DETR decoder needs.

The optimiser is that of mmdet's DINO: at a dense head's rates, SGD's or RTMDet's 4e-3, a DETR decoder does not train.
Bases may not name the same entries, so these have names of their own; a config takes them out with ``_base_.pop``.
"""

custom_imports = dict(imports=['mmdet_iouquery'], allow_failed_imports=False)

rtdetr_head_model = dict(
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

rtdetr_head_optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4, weight_decay=1e-4),
    clip_grad=dict(max_norm=0.1, norm_type=2),
    paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.1))),
)
