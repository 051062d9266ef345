"""RT-DETR-R18: a backbone trained whole, half-width fusion blocks, three decoder layers. 46.5 AP by the authors."""

_base_ = './rtdetr_r50vd_8xb2-72e_coco.py'

model = dict(
    backbone=dict(
        depth=18,
        frozen_stages=-1,
        norm_cfg=dict(requires_grad=True),
        norm_eval=False,
        init_cfg=dict(
            checkpoint='https://github.com/lyuwenyu/storage/releases/download/v0.1/'
            'ResNet18_vd_pretrained_from_paddle.pth',
        ),
    ),
    neck=dict(in_channels=[128, 256, 512], expansion=0.5),
    bbox_head=dict(decoder=dict(num_layers=3)),
)
