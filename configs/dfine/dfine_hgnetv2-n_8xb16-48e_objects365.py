"""D-FINE-N on Objects365, 48 epochs, all augmented.

``dfine_hgnetv2-n_objects365_8xb16-64e_coco`` goes on from it.
"""

_base_ = ['./dfine_hgnetv2-n_8xb16-160e_coco.py', '../_base_/datasets/objects365v2_detection.py']

model = dict(
    bbox_head=dict(num_classes=365),
)
train_dataloader = _base_.pop('objects365_train')
val_dataloader = _base_.pop('objects365_val')
test_dataloader = val_dataloader
val_evaluator = _base_.pop('objects365_evaluator')
test_evaluator = val_evaluator
train_cfg = dict(max_epochs=48)
custom_hooks = _base_.custom_hooks[:-1]
