"""Two-stage Deformable DETR with the anchor-box decoder of DAB-DETR over deformable attention."""

_base_ = 'mmdet::deformable_detr/deformable-detr-refine-twostage_r50_16xb2-50e_coco.py'
custom_imports = dict(imports=['mmdet_iouquery'], allow_failed_imports=False)

model = dict(
    type='IoUQueryDeformableDETR',
    decoder=dict(
        _delete_=True,
        type='DABDecoder',
        cross_attention='deformable',
        num_layers=6,
        feedforward_channels=1024,
        dropout=0.1,
        share_cls_head=False,
        share_bbox_head=False,
    ),
)
