"""D-FINE's decoder and its losses (FGL, DDF) alone: distributions of a box's edges, refined from layer to layer."""

_base_ = './rtdetr_r18vd_128_digits.py'

model = dict(
    bbox_head=dict(
        decoder=dict(
            _delete_=True,
            type='DistributionDecoder',
            num_layers=3,
            num_heads=8,
            feedforward_channels=1024,
            num_points=[3, 6, 3],
            reg_max=32,
            reg_scale=4.0,
        ),
        criterion=dict(
            loss_fgl=dict(type='FineGrainedLocalizationLoss', loss_weight=0.15),
            loss_ddf=dict(type='DistributionDistillationLoss', loss_weight=1.5, temperature=5.0),
        ),
    ),
)
