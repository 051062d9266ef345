"""Every pair of detector and part that :mod:`cells` lists: builds, learns, predicts, survives saving and loading."""

from __future__ import annotations

import copy
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from cells import CELLS, FURTHER, NMS_AT_PREDICTION, NMS_AT_TRAINING, PARTS, WHOLE_HEAD
from helpers import sample, shipped_config
from hosts import narrow, nms_in_torch
from mmdet.models.detectors import DetectionTransformer
from mmdet.registry import HOOKS, MODELS
from mmengine.config import Config, ConfigDict
from mmengine.hub import get_config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import PARAM_SCHEDULERS
from mmengine.structures import InstanceData
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmdet_iouquery.compat import ops_state
from mmdet_iouquery.config_files import config_names, config_path
from mmdet_iouquery.models.losses import MatchabilityAwareLoss

ROOT = Path(__file__).resolve().parents[1]
ALL = [*CELLS, *FURTHER]
CONFIGS = list(dict.fromkeys(cell.config for cell in ALL if cell.config))
NOTES = {name: {cell.note for cell in ALL if cell.config == name} for name in CONFIGS}
WHOLE_HEADS = [name for name in CONFIGS if WHOLE_HEAD in NOTES[name]]
IMAGE_SIZES = ((48, 64), (64, 56))
"""Height and width of the batch's images: each is padded on one side."""
STEPS = {'rtdetr/rtdetr_r18vd_dab-decoder-mal_8xb2-72e_coco.py': 5}
"""Where three are too few: what a box is matched with changes in them, by which the loss jumps 0.02 of 21.8."""
LAYERS = {'encoder': 1, 'decoder': 2}
MOST = {
    'num_queries': 84,  # all tokens of 64 x 64 pixels at strides 8, 16, 32: no choice among them jumps between steps
    'num_denoising': 4,
    'num_dn_queries': 4,
    'num_groups': 2,
    'num_decoder_layers': 2,
    'max_per_img': 20,
    'score_thr': 0.0,
    'nms_pre': 20,
}


def shrink(node: Any) -> None:
    """Few layers, queries and denoising queries, and no least score, wherever a model's config names them."""
    if isinstance(node, (list, tuple)):
        for child in node:
            shrink(child)
    if not isinstance(node, dict):
        return
    for key, child in node.items():
        if child is not None and key in MOST:
            node[key] = min(child, MOST[key])
        elif key in LAYERS and isinstance(child, dict) and 'num_layers' in child:
            child['num_layers'] = LAYERS[key]
        shrink(child)
    if node.get('type') == 'RTDETRHead':  # its parts may go without saying
        node.setdefault('decoder', ConfigDict(type='DeformableDecoder', num_layers=LAYERS['decoder']))
        node.setdefault('query_selector', ConfigDict(type='IoUAwareQuerySelector', num_queries=MOST['num_queries']))


def small_config(name: str) -> Config:
    config = shipped_config(name)
    config.model.data_preprocessor.batch_augments = None
    shrink(config.model)
    narrow(config.model)
    return config


def build(config: Config) -> nn.Module:
    """As mmengine's Runner does in a single process."""
    return revert_sync_batchnorm(MODELS.build(config.model))


def leaves_its_config(config: Config) -> bool:
    """False for mmdet's own DETRs: they write into theirs, and DINO then refuses it the second time."""
    detector = MODELS.get(config.model.type)
    return not issubclass(detector, DetectionTransformer) or detector.__module__.startswith('mmdet_iouquery')


def build_twice(config: Config) -> tuple[nn.Module, nn.Module]:
    """Two detectors of one config object, which must come out as it went in."""
    before = copy.deepcopy(config)
    models = build(config), build(config if leaves_its_config(config) else before)
    if leaves_its_config(config):
        for model in (config.model, before.model):
            for key in ('train_cfg', 'test_cfg'):  # mmdet's detectors write these into their head's config
                model.bbox_head.pop(key, None)
        assert config.model.to_dict() == before.model.to_dict()
    assert list(models[0].state_dict()) == list(models[1].state_dict())
    models[0].init_weights()
    return models


def batch() -> dict:
    """The same two random images at every call, as a data loader hands them over: uint8, not of one size."""
    generator = torch.Generator().manual_seed(3)
    inputs, samples = [], []
    for height, width in IMAGE_SIZES:
        inputs.append(torch.randint(256, (3, height, width), generator=generator, dtype=torch.uint8))
        low = torch.rand(3, 2, generator=generator) * 0.5
        corners = torch.cat([low, low + 0.2 + 0.3 * torch.rand(3, 2, generator=generator)], 1)
        labels = torch.randint(80, (3,), generator=generator)
        samples.append(sample(corners * torch.tensor([width, height] * 2), labels, (height, width)))
    return {'inputs': inputs, 'data_samples': samples}


def losses(model: nn.Module) -> dict[str, Tensor]:
    """The losses of :func:`batch`, ``loss`` their sum; noise and dropout draw the same numbers at every call."""
    torch.manual_seed(5)
    terms = model(**model.data_preprocessor(batch(), training=True), mode='loss')
    total, parts = model.parse_losses(terms)
    return {**parts, 'loss': total}


def hold_norms(model: nn.Module) -> None:
    """Training mode, with batch norms that keep the batch's statistics: of maps this small they jump at every step."""
    norms = [module for module in model.train().modules() if isinstance(module, _BatchNorm) and module.training]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        losses(model)
    for norm in norms:
        norm.eval()


def train(model: nn.Module, falls: str, steps: int) -> list[float]:
    """The loss ``falls`` before each of ``steps`` optimiser steps."""
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(trained.values(), lr=1e-4)
    history = []
    for _ in range(steps):
        terms = losses(model)
        optimizer.zero_grad()
        terms['loss'].backward()
        # distributed training stops at a parameter that has no part in the loss
        assert [name for name, p in trained.items() if p.grad is None] == []
        optimizer.step()
        history.append(terms[falls].item())
    assert [name for name, p in trained.items() if not torch.isfinite(p).all()] == []
    return history


def what_falls(model: nn.Module) -> str:
    """The total loss; with RTMDet's own head that of the boxes.

    That head's boxes begin with no area, which is nothing to learn from, and its classes are to tell the IoU, so their
    loss grows at first as boxes improve.
    """
    reg_convs = getattr(model.bbox_head, 'rtm_reg', None)
    if reg_convs is None:
        return 'loss'
    for conv in reg_convs:
        nn.init.constant_(conv.bias, 2.0)  # four strides wide
    return 'loss_bbox'


def predict(model: nn.Module) -> list[InstanceData]:
    with torch.no_grad():
        results = model.eval()(**model.data_preprocessor(batch(), training=False), mode='predict')
    return [result.pred_instances for result in results]


def check_predictions(predictions: list[InstanceData], clipped: bool) -> None:
    assert len(predictions) == len(IMAGE_SIZES)
    for instances, (height, width) in zip(predictions, IMAGE_SIZES):
        assert len(instances) > 0
        assert torch.isfinite(instances.scores).all() and torch.isfinite(instances.bboxes).all()
        assert instances.scores.min() >= 0 and instances.scores.max() <= 1
        assert instances.labels.min() >= 0 and instances.labels.max() < 80
        if clipped:
            assert (instances.bboxes >= 0).all()
            assert (instances.bboxes <= torch.tensor([width, height] * 2)).all()


@pytest.mark.parametrize('name', CONFIGS)
def test_cell(name: str, tmp_path: Path) -> None:
    config = small_config(name)
    model, other = build_twice(config)
    falls = what_falls(model)  # before any NMS, which boxes without area never reach
    if ops_state() != 'compiled':
        refuses = {NMS_AT_TRAINING: lambda: losses(model.train()), NMS_AT_PREDICTION: lambda: predict(model)}
        for call in (refuses[note] for note in NOTES[name] if note in refuses):
            with pytest.raises(RuntimeError, match="compiled mmcv operator 'nms' was called"):
                call()
    with nms_in_torch():
        check_cell(config, model, other, falls, tmp_path, STEPS.get(name, 3))


def check_cell(config: Config, model: nn.Module, other: nn.Module, falls: str, folder: Path, steps: int) -> None:
    """Learns in a few steps, predicts, and predicts the same after saving and loading."""
    hold_norms(model)
    history = train(model, falls, steps)
    assert history[-1] < history[0]
    predictions = predict(model)
    check_predictions(predictions, clipped=config.model.bbox_head.type != 'YOLOXHead')  # mmdet's own does not clip

    torch.save(model.state_dict(), folder / 'weights.pth')
    other.load_state_dict(torch.load(folder / 'weights.pth', weights_only=True), strict=True)
    for ours, theirs in zip(predictions, predict(other)):
        for key in ('scores', 'labels', 'bboxes'):
            assert torch.equal(ours[key], theirs[key])


@pytest.mark.parametrize('name', WHOLE_HEADS)
def test_a_decoder_is_swapped_within_the_whole_head(name: str) -> None:
    config = small_config(name)
    config.model.bbox_head.decoder = ConfigDict(type='DABDecoder', num_layers=2)
    model = build(config).train()
    losses(model)['loss'].backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.bbox_head.decoder.parameters())
    check_predictions(predict(model), clipped=True)


@pytest.mark.parametrize('name', WHOLE_HEADS)
def test_a_loss_is_swapped_within_the_whole_head(name: str, tmp_path: Path) -> None:
    """By its own name alone: matching, box and IoU loss stay those that the head has by itself."""
    config = small_config(name)
    config.model.bbox_head.criterion = ConfigDict(loss_cls=dict(type='MatchabilityAwareLoss'))
    model, other = build_twice(config)
    assert type(model.bbox_head.criterion.loss_cls) is MatchabilityAwareLoss
    check_cell(config, model, other, 'loss', tmp_path, 3)


def test_every_host_has_every_part_once() -> None:
    places = [(cell.host, cell.part) for cell in CELLS]
    hosts = dict.fromkeys(host for host, _ in places)
    assert sorted(places) == sorted((host, part) for host in hosts for part in PARTS)
    assert all(cell.note for cell in CELLS if cell.config is None), 'a cell without a config gives the reason'


def test_no_config_of_a_host_is_left_out() -> None:
    folders = {name.split('/')[0] for name in CONFIGS} - {'rtdetr'}
    assert {name for name in config_names() if name.split('/')[0] in folders} <= set(CONFIGS)


# --- the configs of the dense detectors -------------------------------------------------------------------------------

DENSE = ('atss', 'fcos', 'retinanet', 'rtmdet', 'yolox')
SWAPPED = {
    'hybrid-encoder': {'neck'},
    'dfine-neck': {'neck'},
    'rtdetr-head': {'bbox_head', 'test_cfg'},
    'retinanet_hgnetv2': {'backbone', 'neck'},
    'retinanet_vit': {'backbone', 'neck'},
    'rtmdet_s_hgnetv2': {'backbone', 'neck', 'data_preprocessor'},
}


def plain(node: Any) -> Any:
    """Without mmengine's mark on what was read from another package's config."""
    if isinstance(node, dict):
        return {key: plain(child) for key, child in node.items() if key != '_scope_'}
    return [plain(child) for child in node] if isinstance(node, (list, tuple)) else node


def mmdets_base(name: str) -> str:
    """The config of mmdet's that one of ours is derived from, by way of another of ours or not."""
    path = Path(config_path(name))
    [base] = re.findall(r"^_base_ = .*?'((?:mmdet::|\./).*?)'", path.read_text(), flags=re.MULTILINE)
    return base if base.startswith('mmdet::') else mmdets_base(f'{name.split("/")[0]}/{Path(base).name}')


@pytest.mark.parametrize('name', [name for name in CONFIGS if name.startswith(DENSE)])
def test_a_dense_detector_is_mmdets_but_for_the_part(name: str) -> None:
    config = plain(shipped_config(name).to_dict())
    base = plain(get_config(mmdets_base(name)).to_dict())
    base['model']['backbone']['init_cfg'] = None
    [swapped] = [keys for word, keys in SWAPPED.items() if word in name]
    for key in {*config['model'], *base['model']} - {'train_cfg'}:
        assert (config['model'].get(key) == base['model'].get(key)) == (key not in swapped), key
    allowed = {'model', 'custom_imports', 'sync_bn'}
    if 'rtdetr-head' in name:
        allowed |= {'optim_wrapper', 'param_scheduler', 'base_lr'}
    assert {key for key in {*config, *base} if config.get(key) != base.get(key)} <= allowed


def learning_rates(config: Config, epoch_length: int = 1000) -> list[float]:
    """The rate at every step of the schedule, with short epochs."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=config.optim_wrapper.optimizer.lr)
    each_step, each_epoch = [], []
    for settings in plain(config.param_scheduler):
        scheduler = PARAM_SCHEDULERS.get(settings.pop('type'))
        build_scheduler = scheduler
        if settings.pop('convert_to_iter_based', False):
            build_scheduler = scheduler.build_iter_from_epoch
            settings['epoch_length'] = epoch_length
        built = build_scheduler(optimizer=optimizer, **settings)
        (each_epoch if built.by_epoch else each_step).append(built)
    rates = []
    for _ in range(config.train_cfg.max_epochs):
        for _ in range(epoch_length):
            rates.append(optimizer.param_groups[0]['lr'])
            for scheduler in each_step:
                scheduler.step()
        for scheduler in each_epoch:
            scheduler.step()
    return rates


@pytest.mark.parametrize('name', [name for name in WHOLE_HEADS if name.startswith(DENSE)])
def test_a_detr_head_gets_a_detrs_rate(name: str) -> None:
    config = shipped_config(name)
    wrapper = config.optim_wrapper
    assert (wrapper.optimizer.type, wrapper.optimizer.lr, wrapper.clip_grad.max_norm) == ('AdamW', 1e-4, 0.1)
    assert set(wrapper.optimizer) == {'type', 'lr', 'weight_decay'}
    rates = learning_rates(config)
    assert max(rates) == pytest.approx(1e-4)
    assert rates[0] < 0.5e-4 and rates[-1] <= 0.11e-4


def test_the_mode_switch_of_yolox_leaves_the_head_as_it_is() -> None:
    config = small_config('yolox/yolox_s_rtdetr-head_8xb8-300e_coco.py')
    [settings] = [hook for hook in config.custom_hooks if hook.type == 'YOLOXModeSwitchHook']
    hook = HOOKS.build({key: value for key, value in settings.items() if key != 'priority'})
    model, skipped = build(config).train(), []
    before = losses(model)
    loader = SimpleNamespace(dataset=SimpleNamespace(update_skip_type_keys=skipped.extend), persistent_workers=False)
    logger = SimpleNamespace(info=lambda text: None)
    hook.before_train_epoch(
        SimpleNamespace(epoch=290, max_epochs=300, model=model, train_dataloader=loader, logger=logger)
    )
    assert skipped == ['Mosaic', 'RandomAffine', 'MixUp']
    assert losses(model) == before


# --- the table of the documentation -----------------------------------------------------------------------------------


def make_table(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / 'tools' / 'make_swap_table.py'), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_table_on_disk_is_the_list() -> None:
    result = make_table('--check')
    assert result.returncode == 0, result.stdout + result.stderr


def test_table_links_lead_to_configs_and_a_changed_table_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / 'swaps.md'
    assert make_table('--check', '--output', str(page)).returncode == 1
    assert make_table('--output', str(page)).returncode == 0
    text = page.read_text()
    for cell in ALL:
        assert cell.config is None or f'](../configs/{cell.config})' in text
    assert make_table('--check', '--output', str(page)).returncode == 0
    page.write_text(text.replace(CELLS[0].host, 'another'))
    assert make_table('--check', '--output', str(page)).returncode == 1
