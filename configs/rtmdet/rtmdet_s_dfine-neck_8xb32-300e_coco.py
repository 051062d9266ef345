"""RTMDet-s with D-FINE's neck at half width in place of the CSPNeXt PAFPN."""

_base_ = './rtmdet_s_hybrid-encoder_8xb32-300e_coco.py'

model = dict(neck=dict(fusion='elan', downsample='separable', lateral_act=False))
