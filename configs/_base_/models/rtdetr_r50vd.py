"""RT-DETR with a ResNet-50-vd (Zhao et al. 2024, table 2, "RT-DETR-R50"). The other depths change a few numbers."""

num_classes = 80
num_queries = 300
num_levels = 3
embed_dims = 256
multi_scale = [480, 512, 544, 576, 608, 640, 640, 640, 672, 704, 736, 768, 800]

model = dict(
    type='SingleStageDetector',
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[0, 0, 0],
        std=[255, 255, 255],
        bgr_to_rgb=True,
        pad_size_divisor=32,
        batch_augments=[dict(type='BatchMultiScale', sizes=multi_scale)],
    ),
    backbone=dict(
        type='ResNetVd',
        depth=50,
        out_indices=(1, 2, 3),
        frozen_stages=0,
        norm_cfg=dict(type='BN', requires_grad=False),
        norm_eval=True,
        init_cfg=dict(
            type='ConvertedPretrained',
            source='rtdetr_backbone',
            checkpoint='https://github.com/lyuwenyu/storage/releases/download/v0.1/'
            'ResNet50_vd_ssld_v2_pretrained_from_paddle.pth',
        ),
    ),
    neck=dict(
        type='HybridEncoder',
        in_channels=[512, 1024, 2048],
        out_channels=256,
        num_heads=8,
        feedforward_channels=1024,
        num_encoder_layers=1,
        expansion=1.0,
    ),
    bbox_head=dict(
        type='RTDETRHead',
        num_classes=num_classes,
        in_channels=[256] * num_levels,
        embed_dims=embed_dims,
        query_selector=dict(type='IoUAwareQuerySelector', num_queries=num_queries),
        denoising=dict(type='ContrastiveDenoising', num_denoising=100, label_noise_ratio=0.5, box_noise_scale=1.0),
        decoder=dict(type='DeformableDecoder', num_layers=6, num_heads=8, feedforward_channels=1024, num_points=4),
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
        ),
    ),
    test_cfg=dict(max_per_img=300, score_thr=0.0),
)
