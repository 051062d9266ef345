"""Queries are learned anchor boxes, whatever the image shows."""

_base_ = './rtdetr_r18vd_128_digits.py'

model = dict(bbox_head=dict(query_selector=dict(type='LearnedAnchors', learned_content=True)))
