"""D-FINE-N: two maps, half as wide, one input size, 160 epochs at a batch of 128. 42.8 AP by the authors."""

_base_ = './dfine_hgnetv2-s_8xb4-132e_coco.py'

max_epochs = 160
stop_epoch = 148
embed_dims = 128
num_levels = 2

model = dict(
    data_preprocessor=dict(batch_augments=None),
    backbone=dict(out_indices=(2, 3)),
    neck=dict(
        in_channels=[512, 1024],
        out_channels=embed_dims,
        feedforward_channels=512,
        expansion=0.34,
        num_fusion_blocks=2,
    ),
    bbox_head=dict(
        in_channels=[embed_dims] * num_levels,
        embed_dims=embed_dims,
        decoder=dict(feedforward_channels=512, num_points=[6, 6]),
    ),
)
train_dataloader = dict(batch_size=16)
train_cfg = dict(max_epochs=max_epochs)
optim_wrapper = dict(optimizer=dict(lr=8e-4))
custom_hooks = [*_base_.custom_hooks[:-1], dict(_base_.custom_hooks[-1], switch_epoch=stop_epoch)]
auto_scale_lr = dict(base_batch_size=128)
