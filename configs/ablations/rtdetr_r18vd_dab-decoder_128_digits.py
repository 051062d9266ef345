"""The dense anchor-box decoder of DAB-DETR over all three maps."""

_base_ = './rtdetr_r18vd_128_digits.py'

model = dict(bbox_head=dict(decoder=dict(type='DABDecoder')))
