"""DETR whose queries are the encoder's boxes with the best IoU-aware score: Efficient DETR's idea."""

_base_ = '../_base_/models/detr_r50_sigmoid.py'

model = dict(type='IoUQueryDETR', query_selector=dict(type='IoUAwareQuerySelector'))
