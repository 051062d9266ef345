"""DINO with RT-DETR's deformable decoder, which reads more points where maps are finer (RT-DETRv2)."""

_base_ = 'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py'
custom_imports = dict(imports=['mmdet_iouquery'], allow_failed_imports=False)

model = dict(
    type='IoUQueryDINO',
    decoder=dict(
        _delete_=True,
        type='DeformableDecoder',
        num_layers=6,
        feedforward_channels=2048,
        num_points=[6, 4, 4, 2],
    ),
)
