"""Does it learn at all? A detector from scratch must be able to learn a handful of images by heart."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from runs import small_run

from mmdet_iouquery.apps.quickstart.digits import build_digits

pytestmark = pytest.mark.skipif(os.environ.get('LONG_TESTS') != '1', reason='takes minutes: make test-long')
NUM_IMAGES, SIZE, STEPS, WARMUP = 16, 96, 400, 25


def test_16_images_are_learnt_by_heart(tmp_path: Path) -> None:
    """R18 from random weights, 400 steps of 4 images at 96 px: AP50 above 0.9 on the images it was trained on."""
    digits = build_digits(tmp_path / 'digits', num_train=NUM_IMAGES, num_val=1, image_size=SIZE, progress=False)
    ann_file = str(digits / 'annotations' / 'train.json')
    options = {
        'train_dataloader.batch_size': 4,
        'model.bbox_head.query_selector.num_queries': 30,
        'train_cfg': dict(type='IterBasedTrainLoop', max_iters=STEPS, val_interval=STEPS),
        'val_cfg': dict(type='ValLoop'),
        'val_evaluator': [dict(type='CocoMetric', ann_file=ann_file, metric='bbox')],
        'val_dataloader': dict(
            batch_size=4,
            num_workers=0,
            sampler=dict(type='DefaultSampler', shuffle=False),
            dataset=dict(
                type='CocoDataset',
                ann_file=ann_file,
                data_prefix=dict(img=str(digits / 'train')),
                metainfo=dict(classes=tuple('0123456789')),
                test_mode=True,
                pipeline=[
                    dict(type='LoadImageFromFile'),
                    dict(type='Resize', scale=(SIZE, SIZE), keep_ratio=False, backend='pillow'),
                    dict(type='LoadAnnotations', with_bbox=True),
                    dict(
                        type='PackDetInputs',
                        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
                    ),
                ],
            ),
        ),
        'param_scheduler': [
            dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=WARMUP),
            dict(type='LinearLR', start_factor=1.0, end_factor=0.02, by_epoch=False, begin=WARMUP, end=STEPS),
        ],
    }
    torch.manual_seed(0)
    runner = small_run(digits, tmp_path / 'run', options, image_size=SIZE)
    runner.train()
    metrics = runner.val_loop.run()
    print(f'AP50 {metrics["coco/bbox_mAP_50"]:.3f}, AP {metrics["coco/bbox_mAP"]:.3f}')
    assert metrics['coco/bbox_mAP_50'] > 0.9
