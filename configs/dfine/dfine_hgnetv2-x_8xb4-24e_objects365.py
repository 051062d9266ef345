"""D-FINE-X on Objects365, 24 epochs, all augmented.

``dfine_hgnetv2-x_objects365_8xb4-36e_coco`` goes on from it.
"""

_base_ = ['./dfine_hgnetv2-x_8xb4-80e_coco.py', '../_base_/datasets/objects365v2_detection.py']

model = dict(
    data_preprocessor=dict(
        batch_augments=[dict(type='BatchMultiScale', sizes=_base_.multi_scale)],
    ),
    bbox_head=dict(num_classes=365),
)
train_dataloader = _base_.pop('objects365_train')
val_dataloader = _base_.pop('objects365_val')
test_dataloader = val_dataloader
val_evaluator = _base_.pop('objects365_evaluator')
test_evaluator = val_evaluator
train_cfg = dict(max_epochs=24)
custom_hooks = _base_.custom_hooks[:-1]
