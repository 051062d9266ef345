"""RTMDet-s with RT-DETR's head in place of its own head and NMS.

Augmentation, EMA and the shape of the schedule stay RTMDet's.
"""

_base_ = ['mmdet::rtmdet/rtmdet_s_8xb32-300e_coco.py', '../_base_/models/rtdetr_head.py']

model = _base_.pop('rtdetr_head_model')
model.bbox_head.update(in_channels=[128] * 3, norm_cfg=dict(type='SyncBN'))
optim_wrapper = _base_.pop('rtdetr_head_optim_wrapper')
base_lr = optim_wrapper.optimizer.lr
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
