"""D-FINE-X on COCO from weights of Objects365: 36 epochs, neither rate nor average warm up. 59.3 AP by the authors.

``load_from`` holds the rows of COCO's classes; see README.md for the line that writes it.
"""

_base_ = ['./dfine_hgnetv2-x_8xb4-80e_coco.py', '../_base_/schedules/steady_ema.py']

stop_epoch = 30

model = dict(
    data_preprocessor=dict(
        batch_augments=[dict(type='BatchMultiScale', sizes=_base_.multi_scale, stop_epoch=stop_epoch)],
    ),
    backbone=dict(init_cfg=None),
)
load_from = 'checkpoints/dfine_hgnetv2-x_objects365_coco-classes.pth'
train_cfg = dict(max_epochs=36)
param_scheduler = []
custom_hooks = [
    _base_.custom_hooks[0],
    _base_.pop('steady_ema'),
    dict(_base_.custom_hooks[-1], switch_epoch=stop_epoch),
]
