"""RT-DETR's schedule: 72 epochs ("6x") at a constant rate after a warm-up, EMA, no decay on norms and biases."""

max_epochs = 72
warmup_iters = 2000

train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=1e-4),
    clip_grad=dict(max_norm=0.1, norm_type=2),
    constructor='NoDecayOptimWrapperConstructor',
    paramwise_cfg=dict(lr_mult=dict(backbone=0.1)),
)
param_scheduler = [dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=warmup_iters)]

# decay 0.9999 * (1 - exp(-step / 2000)): a short memory at first
ema = dict(type='EMAHook', ema_type='ExpMomentumEMA', momentum=0.0001, gamma=2000, update_buffers=True, priority=49)
custom_hooks = [dict(type='NumClassCheckHook'), ema]

# rates are for 8 GPUs with 2 images each; --auto-scale-lr scales them
auto_scale_lr = dict(enable=False, base_batch_size=16)
