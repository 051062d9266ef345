"""DINO with D-FINE's neck."""

_base_ = './dino-4scale_r50_hybrid-encoder_8xb2-12e_coco.py'

model = dict(neck=dict(fusion='elan', downsample='separable', lateral_act=False))
