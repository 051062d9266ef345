"""RT-DETR-R18 with the anchor-box decoder of DAB-DETR over all three maps. No AP of it is known."""

_base_ = './rtdetr_r18vd_8xb2-72e_coco.py'

model = dict(bbox_head=dict(decoder=dict(type='DABDecoder')))
