"""RetinaNet-R50 with D-FINE's neck, and two further levels for its strides 8 to 128, in place of the FPN."""

_base_ = './retinanet_r50_hybrid-encoder_8xb2-1x_coco.py'

model = dict(neck=dict(fusion='elan', downsample='separable', lateral_act=False))
