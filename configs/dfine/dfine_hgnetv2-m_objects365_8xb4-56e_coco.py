"""D-FINE-M on COCO from weights of Objects365: 56 epochs, neither rate nor average warm up. 55.1 AP by the authors.

``load_from`` holds the rows of COCO's classes; see README.md for the line that writes it.
"""

_base_ = ['./dfine_hgnetv2-m_8xb4-132e_coco.py', '../_base_/schedules/steady_ema.py']

stop_epoch = 48

model = dict(
    data_preprocessor=dict(
        batch_augments=[dict(type='BatchMultiScale', sizes=_base_.multi_scale, stop_epoch=stop_epoch)],
    ),
    backbone=dict(init_cfg=None),
)
load_from = 'checkpoints/dfine_hgnetv2-m_objects365_coco-classes.pth'
train_cfg = dict(max_epochs=56)
optim_wrapper = dict(optimizer=dict(lr=2.5e-4, weight_decay=1.25e-4))
param_scheduler = []
custom_hooks = [
    _base_.custom_hooks[0],
    _base_.pop('steady_ema'),
    dict(_base_.custom_hooks[-1], switch_epoch=stop_epoch),
]
