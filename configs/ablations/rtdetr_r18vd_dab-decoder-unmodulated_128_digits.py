"""The dense anchor-box decoder, its attention not modulated by width and height."""

_base_ = './rtdetr_r18vd_128_digits.py'

model = dict(bbox_head=dict(decoder=dict(type='DABDecoder', modulate_hw_attn=False)))
