"""RT-DETR-R18 whose boxes learn by one set of pairs for all layers (D-FINE's union matching). No AP of it is known."""

_base_ = './rtdetr_r18vd_8xb2-72e_coco.py'

model = dict(bbox_head=dict(criterion=dict(union_matching=True)))
