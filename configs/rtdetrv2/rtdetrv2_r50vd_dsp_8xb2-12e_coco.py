"""RT-DETRv2-L, tuned for discrete sampling, which needs no ``grid_sample``. 52.9 AP on COCO val2017 by the authors.

It starts from the authors' weights of ``rtdetrv2_r50vd_8xb2-72e_coco``. To start from a run of your own, set
model.init_cfg to None and load_from to its checkpoint.
"""

_base_ = './rtdetrv2_r50vd_8xb2-72e_coco.py'

stop_epoch = 10

model = dict(
    init_cfg=dict(
        type='ConvertedPretrained',
        source='rtdetrv2',
        checkpoint='https://github.com/lyuwenyu/storage/releases/download/v0.1/rtdetrv2_r50vd_6x_coco_ema.pth',
    ),
    data_preprocessor=dict(
        batch_augments=[dict(type='BatchMultiScale', sizes=_base_.multi_scale, stop_epoch=stop_epoch)]
    ),
    backbone=dict(init_cfg=None),
    bbox_head=dict(decoder=dict(sampling='discrete')),
)
train_cfg = dict(max_epochs=12)
custom_hooks = [*_base_.custom_hooks[:-1], dict(_base_.custom_hooks[-1], switch_epoch=stop_epoch)]
