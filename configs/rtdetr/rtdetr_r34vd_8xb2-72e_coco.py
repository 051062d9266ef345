"""RT-DETR-R34: as R18, one decoder layer more. 48.9 AP on COCO val2017 by the authors."""

_base_ = './rtdetr_r18vd_8xb2-72e_coco.py'

model = dict(
    backbone=dict(
        depth=34,
        init_cfg=dict(
            checkpoint='https://github.com/lyuwenyu/storage/releases/download/v0.1/'
            'ResNet34_vd_pretrained_from_paddle.pth',
        ),
    ),
    bbox_head=dict(decoder=dict(num_layers=4)),
)
