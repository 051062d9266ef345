"""RT-DETRv2-X: a wider encoder, and a backbone rate ten times lower. 54.3 AP on COCO val2017 by the authors."""

_base_ = './rtdetrv2_r50vd_8xb2-72e_coco.py'

encoder_dims = 384
model = dict(
    backbone=dict(
        depth=101,
        init_cfg=dict(
            checkpoint='https://github.com/lyuwenyu/storage/releases/download/v0.1/'
            'ResNet101_vd_ssld_pretrained_from_paddle.pth',
        ),
    ),
    neck=dict(out_channels=encoder_dims, feedforward_channels=2048),
    bbox_head=dict(in_channels=[encoder_dims] * 3),
)
optim_wrapper = dict(paramwise_cfg=dict(lr_mult=dict(backbone=0.01)))
