"""RT-DETRv2-S, tuned for discrete sampling, which needs no ``grid_sample``. 47.4 AP on COCO val2017 by the authors.

It starts from the authors' weights of ``rtdetrv2_r18vd_8xb2-120e_coco``. To start from a run of your own, set
model.init_cfg to None and load_from to its checkpoint.
"""

_base_ = './rtdetrv2_r18vd_8xb2-120e_coco.py'

stop_epoch = 33

model = dict(
    init_cfg=dict(
        type='ConvertedPretrained',
        source='rtdetrv2',
        checkpoint='https://github.com/lyuwenyu/storage/releases/download/v0.1/rtdetrv2_r18vd_120e_coco.pth',
    ),
    backbone=dict(init_cfg=None),
    bbox_head=dict(decoder=dict(sampling='discrete')),
)
train_cfg = dict(max_epochs=36)
custom_hooks = [*_base_.custom_hooks[:-1], dict(_base_.custom_hooks[-1], switch_epoch=stop_epoch)]
