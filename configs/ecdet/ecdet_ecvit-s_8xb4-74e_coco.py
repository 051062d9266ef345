"""ECDet-S: a ViT-tiny behind a pyramid of convolutions, DEIMv2 with plainer layers. 51.7 AP by the authors."""

_base_ = [
    '../_base_/models/deimv2.py',
    '../_base_/datasets/coco_detection.py',
    '../_base_/schedules/schedule_72e.py',
    '../_base_/default_runtime.py',
]

max_epochs = 74
strong_from, plain_from = 36, 72
prob = 0.75  # of mosaic and of mixup
embed_dims = 192
weights = 'https://github.com/capsule2077/edgecrafter/releases/download/edgecrafterv1/{}.pth'

mosaic_or_strong = _base_.pop('mosaic_or_strong')
deim_dataset = _base_.pop('deim_dataset')
steps = deim_dataset.pipeline

model = dict(
    data_preprocessor=dict(
        # of ImageNet, as the ViT is trained
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        batch_augments=[dict(_base_.pop('deim_mix_up'), prob=prob)],
    ),
    backbone=dict(
        _delete_=True,
        type='ViTAdapter',
        arch='ecvit-tiny',
        out_indices=(10, 11),
        tokens='mean',
        project='coarsest',
        init_cfg=dict(
            type='ConvertedPretrained', source='vit_backbone', part='vit', checkpoint=weights.format('ecvitt')
        ),
    ),
    neck=dict(
        in_channels=[embed_dims] * 3,
        out_channels=embed_dims,
        feedforward_channels=512,
        expansion=0.34,
        num_fusion_blocks=2,
        encoder_act_cfg=_base_.silu,
    ),
    bbox_head=dict(
        in_channels=[embed_dims] * 3,
        embed_dims=embed_dims,
        decoder=dict(
            num_layers=4,
            feedforward_channels=512,
            norm='LN',
            ffn='mlp',
            ffn_init='default',
            query_pos=dict(hidden_dims=embed_dims),
        ),
    ),
)
train_dataloader = dict(
    batch_size=4,
    dataset=dict(
        deim_dataset,
        pipeline=[
            dict(steps[0], transforms=[dict(mosaic_or_strong, prob=[prob, 1 - prob])]),
            *steps[1:],
        ],
        dataset=dict(_base_.train_dataloader.dataset, pipeline=_base_.pop('deim_loading')),
    ),
)
train_cfg = dict(max_epochs=max_epochs)
optim_wrapper = dict(
    optimizer=dict(lr=5e-4),
    # the projections learn at the head's rate
    paramwise_cfg=dict(lr_mult=dict(_delete_=True, **{'backbone.vit': 0.05}), authors_rules=[]),
)
param_scheduler = [dict(_base_.pop('flat_cosine'), flat_end=strong_from, decay_end=plain_from, gamma=0.5)]
custom_hooks = [
    dict(type='NumClassCheckHook'),
    dict(_base_.ema, gamma=1000),
    dict(type='AugmentationTimetableHook', timetable=[('mosaic', 0), ('strong', strong_from), ('plain', plain_from)]),
]
auto_scale_lr = dict(base_batch_size=32)
