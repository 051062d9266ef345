"""D-FINE-M: an HGNetv2-B2 that trains whole, four decoder layers, 132 epochs. 52.3 AP by the authors."""

_base_ = './dfine_hgnetv2-l_8xb4-80e_coco.py'

max_epochs = 132
stop_epoch = 120
multi_scale = [*range(480, 640, 32), *[640] * 6, *range(672, 832, 32)]

model = dict(
    data_preprocessor=dict(
        batch_augments=[dict(type='BatchMultiScale', sizes=multi_scale, stop_epoch=stop_epoch)],
    ),
    backbone=dict(
        arch='B2',
        learnable_affine=True,
        frozen_stages=-1,
        norm_cfg=dict(requires_grad=True),
        norm_eval=False,
        init_cfg=dict(checkpoint=_base_.pretrained.format('B2')),
    ),
    neck=dict(in_channels=[384, 768, 1536], num_fusion_blocks=2),
    bbox_head=dict(decoder=dict(num_layers=4)),
)
train_cfg = dict(max_epochs=max_epochs)
optim_wrapper = dict(
    optimizer=dict(lr=2e-4, weight_decay=1e-4),
    paramwise_cfg=dict(lr_mult=dict(backbone=0.1), authors_rules=[dict(pattern='^backbone', decay=True)]),
)
custom_hooks = [*_base_.custom_hooks[:-1], dict(_base_.custom_hooks[-1], switch_epoch=stop_epoch)]
