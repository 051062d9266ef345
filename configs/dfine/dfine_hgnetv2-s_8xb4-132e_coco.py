"""D-FINE-S: a small backbone at half the rate, half-width fusion, three decoder layers. 48.5 AP by the authors."""

_base_ = './dfine_hgnetv2-m_8xb4-132e_coco.py'

multi_scale = [*range(480, 640, 32), *[640] * 20, *range(672, 832, 32)]

model = dict(
    data_preprocessor=dict(
        batch_augments=[dict(type='BatchMultiScale', sizes=multi_scale, stop_epoch=_base_.stop_epoch)],
    ),
    backbone=dict(arch='B0', init_cfg=dict(checkpoint=_base_.pretrained.format('B0'))),
    neck=dict(in_channels=[256, 512, 1024], expansion=0.5, num_fusion_blocks=1),
    bbox_head=dict(decoder=dict(num_layers=3)),
)
optim_wrapper = dict(paramwise_cfg=dict(lr_mult=dict(backbone=0.5)))
