"""DETR with learned anchors and the anchor-box decoder: DAB-DETR with DETR's encoder."""

_base_ = '../_base_/models/detr_r50_sigmoid.py'

model = dict(
    type='IoUQueryDETR',
    query_selector=dict(type='LearnedAnchors'),
    decoder=dict(_delete_=True, type='DABDecoder', num_layers=6),
)
