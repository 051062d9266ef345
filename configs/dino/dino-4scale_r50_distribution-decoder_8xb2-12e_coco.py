"""DINO with D-FINE's decoder, its losses of distributions, and one set of pairs for all layers."""

_base_ = 'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py'
custom_imports = dict(imports=['mmdet_iouquery'], allow_failed_imports=False)

model = dict(
    type='IoUQueryDINO',
    decoder=dict(
        _delete_=True,
        type='DistributionDecoder',
        num_layers=6,
        feedforward_channels=2048,
        num_points=4,
    ),
    criterion=dict(
        union_matching=True,
        loss_fgl=dict(type='FineGrainedLocalizationLoss'),
        loss_ddf=dict(type='DistributionDistillationLoss'),
    ),
)
