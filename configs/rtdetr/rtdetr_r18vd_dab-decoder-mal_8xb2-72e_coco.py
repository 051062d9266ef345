"""RT-DETR-R18 with DAB-DETR's anchor-box decoder and DEIM's matchability-aware loss. No AP of it is known."""

_base_ = './rtdetr_r18vd_mal_8xb2-72e_coco.py'

model = dict(bbox_head=dict(decoder=dict(type='DABDecoder')))
