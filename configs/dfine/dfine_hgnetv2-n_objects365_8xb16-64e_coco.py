"""D-FINE-N on COCO from weights of Objects365: 64 epochs, neither rate nor average warm up.

``load_from`` holds the rows of COCO's classes; see README.md for the line that writes it.
"""

_base_ = ['./dfine_hgnetv2-n_8xb16-160e_coco.py', '../_base_/schedules/steady_ema.py']

stop_epoch = 56

model = dict(
    backbone=dict(init_cfg=None),
)
load_from = 'checkpoints/dfine_hgnetv2-n_objects365_coco-classes.pth'
train_cfg = dict(max_epochs=64)
param_scheduler = []
custom_hooks = [
    _base_.custom_hooks[0],
    _base_.pop('steady_ema'),
    dict(_base_.custom_hooks[-1], switch_epoch=stop_epoch),
]
