"""D-FINE-L (Peng et al. 2024) on an HGNetv2-B4. The other sizes change a few numbers."""

num_classes = 80
num_queries = 300
num_levels = 3
embed_dims = 256
pretrained = 'https://github.com/Peterande/storage/releases/download/dfinev1.0/PPHGNetV2_{}_stage1.pth'


model = dict(
    type='SingleStageDetector',
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[0, 0, 0],
        std=[255, 255, 255],
        bgr_to_rgb=True,
        pad_size_divisor=32,
    ),
    backbone=dict(
        type='HGNetv2',
        arch='B4',
        out_indices=(1, 2, 3),
        init_cfg=dict(type='ConvertedPretrained', source='hgnetv2_backbone', checkpoint=pretrained.format('B4')),
    ),
    neck=dict(
        type='HybridEncoder',
        in_channels=[512, 1024, 2048],
        out_channels=embed_dims,
        num_heads=8,
        feedforward_channels=1024,
        num_encoder_layers=1,
        expansion=1.0,
        num_fusion_blocks=3,
        fusion='elan',
        downsample='separable',
        lateral_act=False,
    ),
    bbox_head=dict(
        type='RTDETRHead',
        num_classes=num_classes,
        in_channels=[embed_dims] * num_levels,
        embed_dims=embed_dims,
        project='unequal',
        query_selector=dict(type='IoUAwareQuerySelector', num_queries=num_queries),
        denoising=dict(type='ContrastiveDenoising', num_denoising=100, label_noise_ratio=0.5, box_noise_scale=1.0),
        decoder=dict(
            type='DistributionDecoder',
            num_layers=6,
            num_heads=8,
            feedforward_channels=1024,
            num_points=[3, 6, 3],
            reg_max=32,
            reg_scale=4.0,
        ),
        criterion=dict(
            type='SetCriterion',
            assigner=dict(
                type='BatchedHungarianAssigner',
                class_weight=2.0,
                bbox_weight=5.0,
                giou_weight=2.0,
                alpha=0.25,
                gamma=2.0,
            ),
            loss_cls=dict(type='IoUVarifocalLoss', alpha=0.75, gamma=2.0, loss_weight=1.0),
            loss_bbox=dict(type='L1Loss', loss_weight=5.0),
            loss_iou=dict(type='GIoULoss', loss_weight=2.0),
            union_matching=True,
            loss_fgl=dict(type='FineGrainedLocalizationLoss', loss_weight=0.15),
            loss_ddf=dict(type='DistributionDistillationLoss', loss_weight=1.5, temperature=5.0),
        ),
    ),
    test_cfg=dict(max_per_img=300, score_thr=0.0),
)
