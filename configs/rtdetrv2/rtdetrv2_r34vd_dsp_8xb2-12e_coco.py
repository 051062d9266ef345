"""RT-DETRv2-M*, tuned for discrete sampling, which needs no ``grid_sample``. 49.2 AP on COCO val2017 by the authors.

It starts from the authors' weights of ``rtdetrv2_r34vd_8xb2-120e_coco``. To start from a run of your own, set
model.init_cfg to None and load_from to its checkpoint.
"""

_base_ = './rtdetrv2_r34vd_8xb2-120e_coco.py'

stop_epoch = 10

model = dict(
    init_cfg=dict(
        type='ConvertedPretrained',
        source='rtdetrv2',
        checkpoint='https://github.com/lyuwenyu/storage/releases/download/v0.1/rtdetrv2_r34vd_120e_coco_ema.pth',
    ),
    data_preprocessor=dict(
        batch_augments=[dict(type='BatchMultiScale', sizes=_base_.multi_scale, stop_epoch=stop_epoch)]
    ),
    backbone=dict(init_cfg=None),
    bbox_head=dict(decoder=dict(sampling='discrete')),
)
train_cfg = dict(max_epochs=12)
custom_hooks = [*_base_.custom_hooks[:-1], dict(_base_.custom_hooks[-1], switch_epoch=stop_epoch)]
