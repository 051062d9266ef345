"""D-FINE-X: a wider backbone and neck, finer bins, a backbone rate five times lower. 55.8 AP by the authors."""

_base_ = './dfine_hgnetv2-l_8xb4-80e_coco.py'

encoder_dims = 384
multi_scale = [*range(480, 640, 32), *[640] * 3, *range(672, 832, 32)]

model = dict(
    data_preprocessor=dict(
        batch_augments=[dict(type='BatchMultiScale', sizes=multi_scale, stop_epoch=_base_.stop_epoch)],
    ),
    backbone=dict(arch='B5', init_cfg=dict(checkpoint=_base_.pretrained.format('B5'))),
    neck=dict(out_channels=encoder_dims, feedforward_channels=2048),
    bbox_head=dict(
        in_channels=[encoder_dims] * 3,
        # the projections of the neck's maps
        init_cfg=dict(type='Xavier', layer='Conv2d', distribution='uniform'),
        decoder=dict(reg_scale=8.0),
    ),
)
optim_wrapper = dict(paramwise_cfg=dict(lr_mult=dict(backbone=0.01)))
