"""RT-DETRv2-S: as R34, one decoder layer less, one rate for all and one input size. 48.1 AP by the authors."""

_base_ = './rtdetrv2_r34vd_8xb2-120e_coco.py'

model = dict(
    data_preprocessor=dict(batch_augments=None),
    backbone=dict(
        depth=18,
        init_cfg=dict(
            checkpoint='https://github.com/lyuwenyu/storage/releases/download/v0.1/'
            'ResNet18_vd_pretrained_from_paddle.pth',
        ),
    ),
    bbox_head=dict(decoder=dict(num_layers=3)),
)
optim_wrapper = dict(
    paramwise_cfg=dict(
        lr_mult=dict(backbone=1.0),
        authors_rules=[dict(pattern='^(neck|bbox_head)(?!.*norm).*bias$', decay=True)],
    ),
)
