"""The fine-tuning recipe: what its switches do, on a small set."""

from __future__ import annotations

import json
import re
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import random_batch
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.runner import Runner

from mmdet_iouquery import config_path
from mmdet_iouquery.apps.quickstart.digits import build_digits
from mmdet_iouquery.engine.launch import run_tool, train

NAME = 'finetune/rtdetr_r18vd_finetune_coco-style.py'
CLASSES = tuple('0123456789')
SIZE, NUM_IMAGES, STEPS = 64, 8, 2


@pytest.fixture(scope='module')
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp('data') / 'digits'
    return build_digits(root, num_train=NUM_IMAGES, num_val=2, image_size=96, progress=False)


def edited(folder: Path, data: Path, **numbers: Any) -> Config:
    """The config as a person would edit it: other values of the variables on top; and small images."""
    path = Path(config_path(NAME))
    text = path.read_text().replace("'../rtdetr/", f"'{path.parents[1]}/rtdetr/")
    values = {'data_root': f'{data}/', 'classes': CLASSES, 'batch_size': 2, 'max_iters': STEPS, 'val_interval': STEPS}
    for name, value in {**values, 'load_from': None, **numbers}.items():
        text, count = re.subn(rf'(?m)^{name} = .*$', f'{name} = {value!r}', text)
        assert count == 1, name
    (folder / 'edited.py').write_text(text)
    cfg = Config.fromfile(folder / 'edited.py')
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.num_workers, loader.persistent_workers = 0, False
        inner = loader.dataset.get('dataset', loader.dataset)
        for step in inner.pipeline:
            if step.type.endswith('Resize'):
                step.scale = (SIZE, SIZE)
    cfg.merge_from_dict(
        {
            'model.data_preprocessor.batch_augments': None,
            'model.bbox_head.query_selector.num_queries': 20,
            'model.bbox_head.denoising.num_denoising': 6,
        }
    )
    return cfg


def test_phases_lie_within_the_run(tmp_path: Path, digits: Path) -> None:
    for max_iters in (10, 500, 4000, 12000):
        cfg = edited(tmp_path, digits, max_iters=max_iters)
        warmup, decay = cfg.param_scheduler
        assert 0 < warmup.end == decay.begin <= max_iters // 10 and decay.end == max_iters == cfg.train_cfg.max_iters
    shipped = Config.fromfile(config_path(NAME))
    assert shipped.optim_wrapper.optimizer.lr == 1e-4 * shipped.train_dataloader.batch_size / 16
    assert shipped.auto_scale_lr.base_batch_size == shipped.train_dataloader.batch_size == 8


@pytest.mark.parametrize('frozen', [False, True])
def test_two_steps_from_given_weights(frozen: bool, tmp_path: Path, digits: Path) -> None:
    """The head learns; a frozen backbone keeps every number, statistics included. Validation gives AP by class."""
    cfg = edited(tmp_path, digits, freeze_backbone=frozen)
    start = {'state_dict': MODELS.build(cfg.model).state_dict()}
    torch.save(start, tmp_path / 'start.pth')
    cfg.load_from = str(tmp_path / 'start.pth')
    cfg.visualizer.name = cfg.experiment_name = f'finetune-{frozen}'  # mmengine keeps one of each name a process
    cfg.dump(tmp_path / 'run.py')
    MessageHub._instance_dict.clear()
    train([str(tmp_path / 'run.py'), '--work-dir', str(tmp_path / 'run')])
    saved = torch.load(tmp_path / 'run' / f'iter_{STEPS}.pth', weights_only=False)
    # EMAHook: the average is the state dict, and beside it are the weights as trained
    trained = {key.removeprefix('module.'): value for key, value in saved['ema_state_dict'].items()}
    assert set(start['state_dict']) <= set(trained)
    for weights in (trained, saved['state_dict']):
        same = {
            part: [
                torch.equal(value, weights[key]) for key, value in start['state_dict'].items() if key.startswith(part)
            ]
            for part in ('backbone', 'bbox_head.decoder')
        }
        assert all(same['backbone']) == frozen and not all(same['bbox_head.decoder'])
    (scalars,) = (tmp_path / 'run').glob('*/vis_data/scalars.json')
    metrics = [json.loads(line) for line in scalars.read_text().splitlines() if 'bbox_mAP' in line]
    assert len(metrics) == 1 and 'coco/bbox_mAP' in metrics[0]
    truth = json.loads((digits / 'annotations' / 'val.json').read_text())
    names = {category['id']: category['name'] for category in truth['categories']}
    for name in {names[annotation['category_id']] for annotation in truth['annotations']}:
        assert f'coco/{name}_precision' in metrics[0]


def test_frozen_backbone_has_no_gradients(tmp_path: Path, digits: Path) -> None:
    model = MODELS.build(edited(tmp_path, digits, freeze_backbone=True).model).train()
    sum(model.loss(*random_batch([2, 0], SIZE, SIZE, len(CLASSES))).values()).backward()
    backbone = dict(model.backbone.named_parameters())
    assert backbone and not any(p.requires_grad or p.grad is not None for p in backbone.values())
    rest = {name: p for name, p in model.named_parameters() if not name.startswith('backbone.')}
    assert all(p.grad is not None for p in rest.values())
    assert not any(module.training for module in model.backbone.modules() if 'BatchNorm' in type(module).__name__)


def test_without_weights_it_says_so(tmp_path: Path, digits: Path, capsys: pytest.CaptureFixture) -> None:
    """Nobody fine-tunes random weights by mistake: the config names a file that is to be made."""
    edited(tmp_path, digits, load_from='mine.pth').dump(tmp_path / 'run.py')
    MessageHub._instance_dict.clear()
    assert run_tool(lambda: train([str(tmp_path / 'run.py'), '--work-dir', str(tmp_path / 'run')])) == 2
    assert (
        'load_from: there is no file mine.pth; correct the path; or begin with --weights FILE'
        in capsys.readouterr().err
    )


def relabelled(digits: Path, folder: Path) -> Path:
    """The digits with other labels: '0' in the first 7 of 8 images, '1' in two of them, '2' in one; one is empty."""
    content = json.loads((digits / 'annotations' / 'train.json').read_text())
    ids = sorted(image['id'] for image in content['images'])
    number = {category['name']: category['id'] for category in content['categories']}
    first = {image: next(a for a in content['annotations'] if a['image_id'] == image) for image in ids}
    annotations = []
    for image, names in zip(ids, ['0', '0', '01', '0', '012', '0', '0', '']):
        annotations += [dict(first[image], category_id=number[name]) for name in names]
    content['annotations'] = [dict(annotation, id=i + 1) for i, annotation in enumerate(annotations)]
    (folder / 'annotations').mkdir()
    (folder / 'train').symlink_to(digits / 'train')
    for name in ('train', 'val'):
        (folder / 'annotations' / f'{name}.json').write_text(json.dumps(content))
    return folder


def test_rare_classes_come_more_often(tmp_path: Path, digits: Path) -> None:
    """Threshold 0.9. '0' is in 7/8: factor sqrt(0.9 * 8 / 7); '1' in 2/8: sqrt(3.6); '2' in 1/8: sqrt(7.2)."""
    data = tmp_path / 'data'
    data.mkdir()
    cfg = edited(tmp_path, relabelled(digits, data), oversample_thr=0.9)
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    often, rare, rarest = np.sqrt([0.9 * 8 / 7, 3.6, 7.2])
    expected = [often, often, rare, often, rarest, often, often, 1.0]
    np.testing.assert_allclose(dataset._get_repeat_factors(dataset.dataset, 0.9), expected)
    times = np.bincount(dataset.repeat_indices, minlength=NUM_IMAGES)
    assert times.tolist() == [2, 2, 2, 2, 3, 2, 2, 1] == [int(np.ceil(x)) for x in expected]

    loader = Runner.build_dataloader(cfg.train_dataloader, seed=0)
    assert len(loader.dataset) == 16
    seen = [sample.img_path for batch in islice(loader, 8) for sample in batch['data_samples']]
    assert sorted(seen.count(path) for path in set(seen)) == sorted(times.tolist())
    assert all(image.shape == (3, SIZE, SIZE) for batch in islice(loader, 2) for image in batch['inputs'])
