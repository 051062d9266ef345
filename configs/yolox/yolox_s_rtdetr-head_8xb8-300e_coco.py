"""YOLOX-s with RT-DETR's head in place of its own head and NMS.

The backbone keeps the full rate, as it starts from nothing. YOLOXModeSwitchHook stays, for it ends mosaic and mixup;
the L1 loss that it announces then is one of YOLOX's head, this head has it from the start.
"""

_base_ = ['mmdet::yolox/yolox_s_8xb8-300e_coco.py', '../_base_/models/rtdetr_head.py']

model = _base_.pop('rtdetr_head_model')
model.bbox_head.update(in_channels=[128] * 3)
optim_wrapper = _base_.pop('rtdetr_head_optim_wrapper')
optim_wrapper.paramwise_cfg = dict(norm_decay_mult=0.0, bias_decay_mult=0.0)
base_lr = optim_wrapper.optimizer.lr
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
