"""RT-DETR-R18 with the neck of D-FINE-S. No AP of it is known."""

_base_ = './rtdetr_r18vd_8xb2-72e_coco.py'

model = dict(neck=dict(num_fusion_blocks=1, fusion='elan', downsample='separable', lateral_act=False))
