"""YOLOX-s with RT-DETR's head in place of its own head and NMS.

The optimiser is that of mmdet's DINO: at SGD's rate for dense heads, a DETR decoder does not train. The backbone keeps
the full rate, as it starts from nothing. YOLOXModeSwitchHook stays, for it ends mosaic and mixup; the L1 loss that it
announces then is one of YOLOX's head, this head has it from the start.
"""

_base_ = 'mmdet::yolox/yolox_s_8xb8-300e_coco.py'

custom_imports = dict(imports=['mmdet_iouquery'], allow_failed_imports=False)

base_lr = 1e-4

model = dict(
    bbox_head=dict(
        _delete_=True,
        type='RTDETRHead',
        num_classes=80,
        in_channels=[128] * 3,
        denoising=dict(type='ContrastiveDenoising'),
    ),
    train_cfg=None,
    test_cfg=dict(_delete_=True, max_per_img=300),
)

optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=base_lr, weight_decay=1e-4),
    clip_grad=dict(max_norm=0.1, norm_type=2),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
)
# YOLOX's, ending at a twentieth of the new rate: the old end lies above it
param_scheduler = [
    dict(type='mmdet.QuadraticWarmupLR', by_epoch=True, begin=0, end=5, convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR',
        eta_min=base_lr * 0.05,
        begin=5,
        end=285,
        T_max=285,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
    dict(type='ConstantLR', by_epoch=True, factor=1, begin=285, end=300),
]
