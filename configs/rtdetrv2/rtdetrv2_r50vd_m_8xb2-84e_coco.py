"""RT-DETRv2-M: narrower fusion blocks; predicts with the first three of six decoder layers. 51.9 AP by the authors."""

_base_ = './rtdetrv2_r50vd_8xb2-72e_coco.py'

stop_epoch = 81

model = dict(
    data_preprocessor=dict(
        batch_augments=[dict(type='BatchMultiScale', sizes=_base_.multi_scale, stop_epoch=stop_epoch)]
    ),
    neck=dict(expansion=0.5),
    test_cfg=dict(num_decoder_layers=3),
)
train_cfg = dict(max_epochs=84)
custom_hooks = [*_base_.custom_hooks[:-1], dict(_base_.custom_hooks[-1], switch_epoch=stop_epoch)]
