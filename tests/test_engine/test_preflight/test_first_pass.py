"""The step and the evaluation before a run: on copies, in the same state as a run, without a trace."""

from __future__ import annotations

import copy
import itertools
import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hosts import host_config
from mmcv.transforms import BaseTransform
from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS, METRICS, MODELS, TRANSFORMS
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.logging import MessageHub, MMLogger
from mmengine.runner import Runner
from PIL import Image
from runs import SMALL_MODEL, small_run
from torch import Tensor
from torch.utils.data import IterableDataset

from mmdet_iouquery import find_coco_set
from mmdet_iouquery.apps.quickstart.command import config_text
from mmdet_iouquery.apps.quickstart.digits import build_digits
from mmdet_iouquery.engine import launch
from mmdet_iouquery.engine.preflight import first_pass as module
from mmdet_iouquery.engine.preflight.first_pass import first_pass
from mmdet_iouquery.engine.preflight.small_batch import smallest_image
from mmdet_iouquery.engine.stop_reasons import told_endings
from mmdet_iouquery.errors import InputError

EVALUATION = ('val_cfg', 'val_dataloader', 'val_evaluator')
MOSAIC = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='CachedMosaic', img_scale=(64, 64)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]


@pytest.fixture(scope='module')
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp('data') / 'digits'
    return build_digits(root, num_train=4, num_val=3, image_size=96, progress=False)


def runner_of(digits: Path, folder: Path, options: dict[str, Any] | None = None, image_size: int = 64) -> Runner:
    """A small run with its validation."""
    cfg = written(digits, folder, image_size=image_size)
    evaluation = {name: cfg[name] for name in EVALUATION}
    options = {**evaluation, **(options or {})}
    return small_run(digits, folder / 'run', options, SMALL_MODEL, image_size=image_size)


def written(digits: Path, folder: Path, more: str = '', image_size: int = 64) -> Config:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / 'config.py'
    path.write_text(config_text(find_coco_set(digits), iters=4, image_size=image_size) + SMALL_MODEL + more)
    return Config.fromfile(path)


def randomness() -> list[Any]:
    _, keys, position, *_ = np.random.get_state()
    return [random.getstate(), tuple(keys), position, torch.get_rng_state().tolist()]


def test_nothing_has_happened(digits: Path, tmp_path: Path) -> None:
    """Weights, statistics, gradients, optimizer, metrics, transforms, numbers to come, log and message hub."""
    runner = runner_of(digits, tmp_path, {'train_dataloader.dataset.pipeline': MOSAIC})
    loop, evaluation = runner.train_loop, runner.val_loop  # built, as at the start of training
    model, optimizer, hub = runner.model, copy.deepcopy(runner.optim_wrapper), dict(runner.message_hub.runtime_info)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    metrics = [dict(vars(metric)) for metric in evaluation.evaluator.metrics]
    random.seed(1), np.random.seed(2), torch.manual_seed(3)
    filters = [len(handler.filters) for handler in MMLogger.get_current_instance().handlers]
    hooks = sum(len(module._forward_hooks) for module in model.modules())
    modes, numbers = [module.training for module in model.modules()], randomness()
    cache = loop.dataloader.dataset.pipeline.transforms[2].results_cache
    assert first_pass(runner, model, runner.cfg, 'train') == []
    assert randomness() == numbers and [module.training for module in model.modules()] == modes
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert runner.train_loop is loop and runner.val_loop is evaluation and (runner.iter, runner.epoch) == (0, 0)
    assert [dict(vars(metric)) for metric in evaluation.evaluator.metrics] == metrics
    assert cache == [] and runner.optim_wrapper == optimizer
    assert isinstance(runner.param_schedulers, list) and all(
        isinstance(param_scheduler, dict) for param_scheduler in runner.param_schedulers
    )
    assert dict(MessageHub.get_current_instance().runtime_info) == hub
    assert [len(handler.filters) for handler in MMLogger.get_current_instance().handlers] == filters
    assert sum(len(module._forward_hooks) for module in model.modules()) == hooks


@pytest.mark.parametrize('workers', [0, 1])
def test_the_training_is_the_same_bit_for_bit(workers: int, digits: Path, tmp_path: Path) -> None:
    """With it and without: initialisation, augmented data (with a cache of images), denoising, dropout."""
    ends = []
    for tried in (True, False):
        options = {
            'train_cfg.max_iters': 3,
            'train_dataloader.dataset.pipeline': MOSAIC,
            'train_dataloader.num_workers': workers,
            'train_dataloader.persistent_workers': workers > 0,
            'model.bbox_head.decoder.dropout': 0.1,
            'randomness': dict(seed=3),
        }
        runner = runner_of(digits, tmp_path / str(tried), options)
        if tried:
            assert first_pass(runner, runner.model, runner.cfg, 'train') == []
        runner.train()
        ends.append(runner.model.state_dict())
    assert all(torch.equal(tensor, ends[1][name]) for name, tensor in ends[0].items())


def test_a_dry_run_tries_as_well(digits: Path, tmp_path: Path) -> None:
    written(digits, tmp_path, "val_evaluator[0]['metric'] = ['bbox', 'segm']\n")
    with pytest.raises(InputError, match=r'at val_evaluator\[0\]: KeyError: segm'):
        launch.train([str(tmp_path / 'config.py'), '--work-dir', str(tmp_path / 'run'), '--dry-run'])


@pytest.mark.parametrize('side', [64, 256])
def test_more_queries_than_a_small_image_has_tokens(
    side: int, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """mmdet's detectors cannot select 300 of 85 tokens; of 1,360 they can: no reason to refuse a run of such images."""
    runner = runner_of(digits, tmp_path, image_size=side)
    cfg = host_config('DeformableDETR', num_queries=300)
    cfg.bbox_head.num_classes = 10
    runner.val_loop.evaluator.metrics.pop()  # of queries, which mmdet's do not tell of
    sides = []
    batch = module.small_batch
    monkeypatch.setattr(module, 'small_batch', lambda *given, **how: (sides.append(given[2]), batch(*given, **how))[1])
    settings = Config({**runner.cfg, 'model': cfg})
    model = MODELS.build(copy.deepcopy(cfg))
    if side == 64:
        few = r'85 tokens on all maps together, of which model\.num_queries=300 cannot be selected: set it to 85'
        with pytest.raises(InputError, match=few):
            first_pass(runner, model, settings, 'train')
        assert sides == []
    else:
        assert first_pass(runner, model, settings, 'train') == []
        assert sides == [64, 256, 64, 256]


@pytest.mark.parametrize('split', ['train', 'val'])
def test_more_queries_than_the_smallest_image_has_tokens(split: str, digits: Path, tmp_path: Path) -> None:
    """Of 96x16 px, 64x11 where the ratio is kept: 16 + 4 + 2 + 1 tokens. The first image, of 96x96, has 85."""
    root = tmp_path / 'digits'
    shutil.copytree(digits, root)
    file = root / 'annotations' / f'{split}.json'
    content = json.loads(file.read_text())
    image = content['images'][2]
    image['height'] = 16
    for annotation in content['annotations']:
        if annotation['image_id'] == image['id']:
            annotation['bbox'] = [1, 1, 12, 12]
    file.write_text(json.dumps(content))
    path = root / split / image['file_name']
    Image.open(path).crop((0, 0, 96, 16)).save(path)
    boxes = dict(type='LoadAnnotations', with_bbox=True)
    steps = [dict(type='LoadImageFromFile'), boxes, dict(type='Resize', scale=(64, 64), keep_ratio=True)]
    steps.append(dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')))
    runner = runner_of(root, tmp_path, {f'{split}_dataloader.dataset.pipeline': steps})
    runner.val_loop.evaluator.metrics.pop()  # of queries, which mmdet's do not tell of
    for queries in (23, 24):
        cfg = host_config('DeformableDETR', num_queries=queries)
        cfg.bbox_head.num_classes = 10
        settings, model = Config({**runner.cfg, 'model': cfg}), MODELS.build(copy.deepcopy(cfg))
        if queries == 23:
            assert first_pass(runner, model, settings, 'train') == []
            continue
        few = rf'^{split}_dataloader: .*{path.name} comes as 11x64 .* has 23 tokens .*num_queries=24 .* to 23 or fewer'
        with pytest.raises(InputError, match=few):
            first_pass(runner, model, settings, 'train')


def refused_for_tokens(runner: Runner, num_queries: int, message: str) -> None:
    """A host of mmdet's that selects so many queries from tokens is refused with this message."""
    cfg = host_config('DeformableDETR', num_queries=num_queries)
    cfg.bbox_head.num_classes = 10
    with pytest.raises(InputError, match=message):
        first_pass(runner, MODELS.build(copy.deepcopy(cfg)), Config({**runner.cfg, 'model': cfg}), 'train')


def test_the_smallest_image_is_the_squarest_where_the_shorter_side_is_bounded(digits: Path, tmp_path: Path) -> None:
    """Scales of 500x40 px: 40x40 of the square images, 40x240 of one of 96x16. 25 + 9 + 4 + 1 tokens at 40x40."""
    root = tmp_path / 'digits'
    shutil.copytree(digits, root)
    file = root / 'annotations' / 'train.json'
    content = json.loads(file.read_text())
    content['images'][0]['height'] = 16
    file.write_text(json.dumps(content))
    path = root / 'train' / content['images'][0]['file_name']
    Image.open(path).crop((0, 0, 96, 16)).save(path)
    boxes = dict(type='LoadAnnotations', with_bbox=True)
    scales = dict(type='RandomChoiceResize', scales=[(500, 40), (500, 64)], keep_ratio=True)
    steps = [dict(type='LoadImageFromFile'), boxes, scales, dict(type='PackDetInputs')]
    runner = runner_of(root, tmp_path, {'train_dataloader.dataset.pipeline': steps})
    dataset = runner.train_loop.dataloader.dataset
    image = smallest_image(dataset, draws=16)
    assert image.size == (40, 40)
    assert image.bound == (40, 40)
    few = r'comes as 40x40 .* has 39 tokens .*num_queries=40 cannot be selected: set it to 39 or fewer'
    refused_for_tokens(runner, 40, few)


def test_the_advised_number_holds_for_heights_and_widths_of_different_images(digits: Path, tmp_path: Path) -> None:
    """64x128 and 128x64 px have 128 + 32 + 8 + 2 tokens each; a crop of 64x64 could come, and has 85."""
    root = tmp_path / 'digits'
    shutil.copytree(digits, root)
    file = root / 'annotations' / 'train.json'
    content = json.loads(file.read_text())
    for image, (width, height) in zip(content['images'], itertools.cycle([(96, 48), (44, 96)])):
        image.update(width=width, height=height)
        path = root / 'train' / image['file_name']
        Image.open(path).crop((0, 0, width, height)).save(path)
    file.write_text(json.dumps(content))
    boxes = dict(type='LoadAnnotations', with_bbox=True)
    scale = dict(type='Resize', scale=(500, 64), keep_ratio=True)
    steps = [dict(type='LoadImageFromFile'), boxes, scale, dict(type='PackDetInputs')]
    runner = runner_of(root, tmp_path, {'train_dataloader.dataset.pipeline': steps})
    few = r'comes as 64x128 .* has 170 tokens .*num_queries=900 cannot be selected: set it to 85 or fewer'
    refused_for_tokens(runner, 900, few)


def test_fewer_tokens_than_queries_are_noted(digits: Path, tmp_path: Path) -> None:
    """64 + 16 + 4 of an image of 64x64; all become queries, and the run goes on."""
    options = {'model.bbox_head.query_selector.num_queries': 85}
    runner = runner_of(digits, tmp_path / 'a', options)
    (note,) = first_pass(runner, runner.model, runner.cfg, 'train')
    assert note.startswith('images of 64x64 (height x width) have 84 tokens on all maps together, so that each becomes')
    runner = runner_of(digits, tmp_path / 'b', {'model.bbox_head.query_selector.num_queries': 84})
    assert first_pass(runner, runner.model, runner.cfg, 'train') == []


def test_a_smaller_size_than_was_drawn_before_the_run(digits: Path, tmp_path: Path) -> None:
    """It ends the run, in a sentence."""
    cfg = host_config('DeformableDETR', num_queries=86)
    cfg.bbox_head.num_classes = 10
    runner = runner_of(digits, tmp_path)
    runner.model = MODELS.build(cfg)
    few = r'images came that have 85 tokens on all maps together, .*num_queries=86 cannot be selected: set it to 85'
    with pytest.raises(InputError, match=few), told_endings(runner, tmp_path):
        runner.train()


@pytest.mark.parametrize(('host', 'sigmoid', 'scores'), [('DeformableDETR', True, 200), ('DETR', False, 20)])
def test_more_detections_than_queries_have_scores(
    host: str, sigmoid: bool, scores: int, digits: Path, tmp_path: Path
) -> None:
    """One a class and query where scores are sigmoids, one a query where they are of a softmax."""
    runner = runner_of(digits, tmp_path)
    cfg = host_config(host, sigmoid=sigmoid)
    cfg.bbox_head.num_classes = 10
    cfg.test_cfg.max_per_img = scores
    runner.val_loop.evaluator.metrics.pop()  # of queries, which mmdet's do not tell of
    model = MODELS.build(copy.deepcopy(cfg))
    assert first_pass(runner, model, Config({**runner.cfg, 'model': cfg}), 'train') == []
    cfg.test_cfg.max_per_img = scores + 1
    model = MODELS.build(copy.deepcopy(cfg))
    few = rf'queries=20 have {scores} scores, .* model\.test_cfg\.max_per_img={scores + 1} .*: set it to {scores} or'
    with pytest.raises(InputError, match=few):
        first_pass(runner, model, Config({**runner.cfg, 'model': cfg}), 'train')


def test_weights_that_are_not_initialised_yet_are_no_mistake(digits: Path, tmp_path: Path) -> None:
    """As ``torch.empty`` may leave them: the solver that mmdet's matching calls refuses what comes of NaN."""
    runner = runner_of(digits, tmp_path)
    cfg = host_config('DETR')
    cfg.bbox_head.num_classes = 10
    runner.val_loop.evaluator.metrics.pop()  # of queries, which mmdet's do not tell of
    model = MODELS.build(copy.deepcopy(cfg))
    with torch.no_grad():
        model.query_embedding.weight.fill_(float('nan'))
    assert first_pass(runner, model, Config({**runner.cfg, 'model': cfg}), 'train') == []


def test_no_resize_of_another_head_is_refused_with_the_remedy(digits: Path, tmp_path: Path) -> None:
    """RetinaNet's head is mmdet's and needs a scale factor; the remedy that is named is one."""
    head = dict(
        type='RetinaHead',
        num_classes=10,
        in_channels=32,
        feat_channels=32,
        stacked_convs=1,
        anchor_generator=dict(type='AnchorGenerator', scales=[4], ratios=[1.0], strides=[8, 16, 32]),
        loss_cls=dict(type='FocalLoss', use_sigmoid=True),
    )
    train = dict(assigner=dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4), pos_weight=-1)
    steps = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True), dict(type='PackDetInputs')]
    model = {'_delete_': True, **head}
    options = {
        'model.bbox_head': model,
        'model.train_cfg': dict(**train, allowed_border=-1, debug=False),
        'model.test_cfg': dict(_delete_=True, nms_pre=10, min_bbox_size=0, score_thr=0.0, max_per_img=5, nms=None),
        'val_dataloader.dataset.pipeline': steps,
        'val_evaluator': [dict(type='CocoMetric', ann_file=str(digits / 'annotations' / 'val.json'))],
    }
    runner = runner_of(digits, tmp_path, options)
    with pytest.raises(InputError) as refused:
        first_pass(runner, runner.model, runner.cfg, 'train')
    message = str(refused.value)
    assert 'predicting an image fails at model.bbox_head' in message
    assert "come without scale_factor: add dict(type='Resize', scale_factor=1.0)" in message
    steps.insert(1, dict(type='Resize', scale_factor=1.0))
    runner = runner_of(digits, tmp_path / 'mended', options)
    data = runner.val_dataloader.dataset[0]
    assert data['data_samples'].scale_factor == (1.0, 1.0) and data['inputs'].shape[1:] == (96, 96)


@TRANSFORMS.register_module()
class AddMasks(BaseTransform):
    """Empty ones."""

    def transform(self, results: dict) -> dict:
        height, width = results['img'].shape[:2]
        masks = np.zeros((len(results['gt_bboxes']), height, width), np.uint8)
        return {**results, 'gt_masks': BitmapMasks(masks, height, width)}


def test_an_augmentation_of_a_later_stage_that_takes_no_masks(digits: Path, tmp_path: Path) -> None:
    load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True)]
    options = {
        'model.data_preprocessor.batch_augments': [dict(type='BatchCopyBlend', stages=['later'])],
        'train_dataloader.dataset.pipeline': [*load, dict(type='AddMasks'), dict(type='PackDetInputs')],
    }
    runner = runner_of(digits, tmp_path, options)
    with pytest.raises(InputError, match='BatchCopyBlend mixes images with boxes only, but they come with masks'):
        first_pass(runner, runner.model, runner.cfg, 'train')


@DATASETS.register_module()
class OneAfterAnother(IterableDataset):
    METAINFO = CocoDataset.METAINFO
    metainfo = {'classes': ('a',)}

    def __iter__(self) -> Any:
        yield from ()


def test_what_cannot_be_tried_is_said(digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Data that can only be iterated; metrics that evaluate in a way of their own."""

    @METRICS.register_module(force=True)
    class Elsewhere(BaseMetric):
        def process(self, data_batch: Any, data_samples: Any) -> None:
            raise AssertionError('not to be called')

        compute_metrics = process

        def evaluate(self, size: int) -> dict[str, float]:
            return {}

    stream = {'batch_size': 2, 'num_workers': 0, 'dataset': dict(type='OneAfterAnother'), 'persistent_workers': False}
    options = {'train_dataloader': {'_delete_': True, **stream}, 'val_evaluator': [dict(type='Elsewhere')]}
    runner = runner_of(digits, tmp_path, options)
    launch.try_out(runner, runner.model, runner.cfg, 'train')
    output = capsys.readouterr().out.splitlines()
    assert [line for line in output if line.startswith('note: not tried')] == [
        'note: not tried: a training step, as its data set cannot be asked for a single image',
        'note: not tried: Elsewhere, which evaluates in its own way',
    ]


def test_save_best_of_a_value_that_one_image_may_lack(digits: Path, tmp_path: Path) -> None:
    for name in ('coco/bbox_mAP_50', 'selection/right_class', 'auto'):
        hook = dict(type='CheckpointHook', interval=1, save_best=name, rule=None if name == 'auto' else 'greater')
        runner = runner_of(digits, tmp_path / name.replace('/', '-'), {'default_hooks.checkpoint': hook})
        assert first_pass(runner, runner.model, runner.cfg, 'train') == []


@METRICS.register_module()
class Seen(BaseMetric):
    """Keeps what it was given."""

    seen: list[Any] = []

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results.append(data_samples[0])

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        Seen.seen.append(results)
        return {'count': float(len(results))}


def test_metrics_get_a_detection_even_where_the_model_finds_none(digits: Path, tmp_path: Path) -> None:
    """COCO's end early without any, before they ask for masks."""
    options = {'val_evaluator': [dict(type='Seen')], 'model.test_cfg.score_thr': 0.999}
    runner = runner_of(digits, tmp_path, options)
    Seen.seen.clear()
    assert first_pass(runner, runner.model, runner.cfg, 'train') == []
    ((result,),) = Seen.seen
    instances = result['pred_instances']
    assert [tuple(instances[name].shape) for name in ('bboxes', 'scores', 'labels')] == [(1, 4), (1,), (1,)]
    assert isinstance(instances['bboxes'], Tensor) and result['ori_shape'] == (96, 96)
