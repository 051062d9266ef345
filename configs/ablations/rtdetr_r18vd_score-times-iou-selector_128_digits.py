"""Queries chosen by class score times an explicitly predicted IoU."""

_base_ = './rtdetr_r18vd_128_digits.py'

model = dict(bbox_head=dict(query_selector=dict(type='ScoreTimesIoUQuerySelector')))
