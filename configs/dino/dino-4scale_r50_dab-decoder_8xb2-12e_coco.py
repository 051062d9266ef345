"""DINO with the anchor-box decoder of DAB-DETR over deformable attention."""

_base_ = 'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py'
custom_imports = dict(imports=['mmdet_iouquery'], allow_failed_imports=False)

model = dict(
    type='IoUQueryDINO',
    decoder=dict(
        _delete_=True,
        type='DABDecoder',
        cross_attention='deformable',
        num_layers=6,
        share_cls_head=False,
        share_bbox_head=False,
    ),
)
