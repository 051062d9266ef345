"""RetinaNet with DEIMv2's ViT-tiny and spatial prior in place of ResNet-50: three maps for its FPN.

The weights are a file of DEIMv2's authors, which their README links to.
"""

_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'

custom_imports = dict(imports=['mmdet_iouquery'], allow_failed_imports=False)

model = dict(
    backbone=dict(
        _delete_=True,
        type='ViTAdapter',
        arch='tiny',
        out_indices=(3, 7, 11),
        prior_channels=16,
        init_cfg=dict(
            type='ConvertedPretrained', source='vit_backbone', part='vit', checkpoint='ckpts/vitt_distill.pt'
        ),
    ),
    neck=dict(in_channels=[192] * 3, start_level=0),
)

sync_bn = 'torch'  # two images a GPU are few for the batch norms of the spatial prior
