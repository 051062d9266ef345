"""RetinaNet-R50 with RT-DETR's hybrid encoder, and two further levels for its strides 8 to 128, in place of the FPN."""

_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'

custom_imports = dict(imports=['mmdet_iouquery'], allow_failed_imports=False)

model = dict(
    neck=dict(
        _delete_=True,
        type='HybridEncoder',
        in_channels=[256, 512, 1024, 2048],
        out_channels=256,
        start_level=1,
        num_outs=5,
    ),
)

sync_bn = 'torch'  # two images a GPU are few for the batch norms of the neck
