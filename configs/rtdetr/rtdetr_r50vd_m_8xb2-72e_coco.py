"""RT-DETR-R50-m: narrower fusion blocks; predicts with the first three of six decoder layers. 51.3 AP in the paper."""

_base_ = './rtdetr_r50vd_8xb2-72e_coco.py'

model = dict(neck=dict(expansion=0.5), test_cfg=dict(num_decoder_layers=3))
