"""Images that training could not use are counted in its log, whoever loads them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from runs import SMALL_MODEL, small_run

from mmdet_iouquery.apps.quickstart.digits import build_digits


@pytest.mark.parametrize('workers', [0, 2])
def test_skipped_pictures_are_counted(workers: int, tmp_path: Path) -> None:
    """One of four is half a file: named once, counted as often as it was drawn, and the run goes on."""
    root = build_digits(tmp_path / 'digits', num_train=4, num_val=2, image_size=96, progress=False)
    broken = sorted((root / 'train').glob('*.jpg'))[1]
    broken.write_bytes(broken.read_bytes()[:-400])
    options = {
        'train_cfg.max_iters': 6,
        'train_dataloader.num_workers': workers,
        'train_dataloader.dataset': dict(
            _delete_=True,
            type='RepeatDataset',
            times=1,
            dataset=dict(
                type='CocoDataset',
                ann_file=str(root / 'annotations' / 'train.json'),
                data_prefix=dict(img=str(root / 'train')),
                metainfo=dict(classes=tuple('0123456789')),
                pipeline=[
                    dict(type='LoadImageFromFile', _scope_='mmdet_iouquery', on_error='skip'),
                    dict(type='LoadAnnotations', with_bbox=True),
                    dict(type='Resize', scale=(32, 32), keep_ratio=False),
                    dict(type='PackDetInputs'),
                ],
            ),
        ),
        'default_hooks.checkpoint': None,
        'randomness': dict(seed=0),
    }
    runner = small_run(root, tmp_path / 'run', options, SMALL_MODEL, image_size=32)
    runner.train()
    counts = runner.message_hub.get_scalar('train/skipped_pictures').data[0].tolist()
    assert runner.iter == 6 and counts == sorted(counts) and counts[-1] >= 3, 'twelve samples are three times all four'
    log = next((tmp_path / 'run').glob('*/*.log')).read_text()
    assert re.search(r'samples skipped so far: [1-9]\d*, of images: 1; each is named above', log)
    assert workers or log.count(f'skipped in training: {broken}') == 1
