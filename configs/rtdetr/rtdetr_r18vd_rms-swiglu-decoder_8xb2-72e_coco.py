"""RT-DETR-R18 whose decoder has DEIMv2's norms and feed-forward networks. No AP of it is known."""

_base_ = './rtdetr_r18vd_8xb2-72e_coco.py'

model = dict(bbox_head=dict(decoder=dict(norm='RMS', ffn='swiglu')))
