"""D-FINE-M on Objects365, 36 epochs, all augmented.

``dfine_hgnetv2-m_objects365_8xb4-56e_coco`` goes on from it.
"""

_base_ = ['./dfine_hgnetv2-m_8xb4-132e_coco.py', '../_base_/datasets/objects365v2_detection.py']

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
train_cfg = dict(max_epochs=36)
optim_wrapper = dict(optimizer=dict(lr=2.5e-4, weight_decay=1.25e-4))
custom_hooks = _base_.custom_hooks[:-1]
