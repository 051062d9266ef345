"""DDQ-DETR with the anchor-box decoder of DAB-DETR; NMS keeps queries apart before it, not between its layers."""

_base_ = 'mmdet::ddq/ddq-detr-4scale_r50_8xb2-12e_coco.py'
custom_imports = dict(imports=['mmdet_iouquery'], allow_failed_imports=False)

model = dict(
    type='IoUQueryDDQDETR',
    decoder=dict(
        _delete_=True,
        type='DABDecoder',
        cross_attention='deformable',
        num_layers=6,
        share_cls_head=False,
        share_bbox_head=False,
    ),
)
