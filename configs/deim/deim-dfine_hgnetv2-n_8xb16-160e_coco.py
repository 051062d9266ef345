"""DEIM on D-FINE-N. 43.0 AP on COCO val2017 by the authors."""

_base_ = ['../dfine/dfine_hgnetv2-n_8xb16-160e_coco.py', '../_base_/models/deim.py']

model = _base_.pop('deim_dfine_model')
