"""RT-DETRv2-M*: a backbone trained whole at half the rate, four decoder layers, 120 epochs. 49.9 AP by the authors."""

_base_ = './rtdetrv2_r50vd_8xb2-72e_coco.py'

stop_epoch = 117

model = dict(
    data_preprocessor=dict(
        batch_augments=[dict(type='BatchMultiScale', sizes=_base_.multi_scale, stop_epoch=stop_epoch)]
    ),
    backbone=dict(
        depth=34,
        frozen_stages=-1,
        norm_cfg=dict(requires_grad=True),
        norm_eval=False,
        init_cfg=dict(
            checkpoint='https://github.com/lyuwenyu/storage/releases/download/v0.1/'
            'ResNet34_vd_pretrained_from_paddle.pth',
        ),
    ),
    neck=dict(in_channels=[128, 256, 512], expansion=0.5),
    bbox_head=dict(decoder=dict(num_layers=4)),
)
optim_wrapper = dict(paramwise_cfg=dict(lr_mult=dict(backbone=0.5), authors_rules=[]))
train_cfg = dict(max_epochs=120)
custom_hooks = [*_base_.custom_hooks[:-1], dict(_base_.custom_hooks[-1], switch_epoch=stop_epoch)]
