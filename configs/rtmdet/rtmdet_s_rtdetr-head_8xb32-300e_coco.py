"""RTMDet-s with RT-DETR's head in place of its own head and NMS.

The optimiser is that of mmdet's DINO: at RTMDet's 4e-3, a DETR decoder does not train. Augmentation, EMA and the shape
of the schedule stay RTMDet's.
"""

_base_ = 'mmdet::rtmdet/rtmdet_s_8xb32-300e_coco.py'

custom_imports = dict(imports=['mmdet_iouquery'], allow_failed_imports=False)

base_lr = 1e-4

model = dict(
    bbox_head=dict(
        _delete_=True,
        type='RTDETRHead',
        num_classes=80,
        in_channels=[128] * 3,
        denoising=dict(type='ContrastiveDenoising'),
        norm_cfg=dict(type='SyncBN'),
    ),
    train_cfg=None,
    test_cfg=dict(_delete_=True, max_per_img=300),
)

optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=base_lr, weight_decay=1e-4),
    clip_grad=dict(max_norm=0.1, norm_type=2),
    paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.1))),
)
# RTMDet's, ending at a twentieth of the new rate: the old end lies above it
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-5, by_epoch=False, begin=0, end=1000),
    dict(
        type='CosineAnnealingLR',
        eta_min=base_lr * 0.05,
        begin=150,
        end=300,
        T_max=150,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
