"""RT-DETR-R18 whose backbone, selector, denoising, decoder, loss and augmentation are those of own_parts.

PYTHONPATH=examples python tools/train.py examples/own_parts/configs/rtdetr_r18vd_own-parts_8xb2-72e_coco.py
"""

_base_ = __import__('mmdet_iouquery').config_path('rtdetr/rtdetr_r18vd_8xb2-72e_coco.py')  # wherever it is installed
custom_imports = dict(imports=['mmdet_iouquery', 'own_parts'], allow_failed_imports=False)

model = dict(
    backbone=dict(_delete_=True, type='SmallMobileNet', channels=[64, 128, 256, 512]),
    neck=dict(in_channels=[128, 256, 512]),
    bbox_head=dict(
        query_selector=dict(_delete_=True, type='LevelBalancedSelector', balance=0.5),
        denoising=dict(_delete_=True, type='LabelDropDenoising', drop=0.5),
        decoder=dict(type='RelativeDecoder'),  # with the settings of the one in its place
        criterion=dict(loss_cls=dict(_delete_=True, type='AlignLoss')),
    ),
)
optim_wrapper = dict(paramwise_cfg=dict(lr_mult=dict(backbone=1.0)))  # it begins at random

copy_objects = dict(type='CopySmallObjects', copies=2)
train_pipeline = [*_base_.train_pipeline[:3], copy_objects, *_base_.train_pipeline[3:]]  # behind CleanBoxes
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
