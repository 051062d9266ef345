"""Two-stage Deformable DETR with D-FINE's decoder, its losses of distributions, and one set of pairs for all layers."""

_base_ = 'mmdet::deformable_detr/deformable-detr-refine-twostage_r50_16xb2-50e_coco.py'
custom_imports = dict(imports=['mmdet_iouquery'], allow_failed_imports=False)

model = dict(
    type='IoUQueryDeformableDETR',
    decoder=dict(
        _delete_=True,
        type='DistributionDecoder',
        num_layers=6,
        feedforward_channels=1024,
        num_points=4,
    ),
    criterion=dict(
        union_matching=True,
        loss_fgl=dict(type='FineGrainedLocalizationLoss'),
        loss_ddf=dict(type='DistributionDistillationLoss'),
    ),
)
