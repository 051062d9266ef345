"""Queries chosen by class score alone ("vanilla" selection) instead of the IoU-aware score."""

_base_ = './rtdetr_r18vd_128_digits.py'

model = dict(bbox_head=dict(query_selector=dict(type='ClassScoreQuerySelector')))
