"""FCOS-R50 with RT-DETR's head over the five maps of its FPN, in place of its own head and NMS."""

_base_ = ['mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py', '../_base_/models/rtdetr_head.py']

model = _base_.pop('rtdetr_head_model')
optim_wrapper = _base_.pop('rtdetr_head_optim_wrapper')
sync_bn = 'torch'  # two images a GPU are few for the batch norms of the head
