"""Every shipped config builds, trains a step and predicts, and says what the paper's recipe says."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from helpers import random_batch, shipped_config
from mmcv.transforms import LoadImageFromFile
from mmdet.datasets import get_loading_pipeline
from mmdet.registry import MODELS, PARAM_SCHEDULERS, TRANSFORMS
from mmengine.config import Config, ConfigDict
from mmengine.optim import build_optim_wrapper
from tolerances import about
from torch import nn

from mmdet_iouquery import CocoSet
from mmdet_iouquery.apps.quickstart.command import config_text, enough_queries
from mmdet_iouquery.config_files import config_names, config_path
from mmdet_iouquery.datasets.loading import LoadCheckedImage
from mmdet_iouquery.models.data_preprocessors import BatchCopyBlend
from mmdet_iouquery.models.layers import LearnableAffine, RMSNorm

FOLDERS = ('rtdetr/', 'rtdetrv2/', 'dfine/', 'quickstart/', 'ablations/', 'finetune/')
CONFIGS = [name for name in config_names() if name.startswith(FOLDERS)]
"""Those that are RT-DETR; ``test_cells.py`` has the others."""
COCO = [name for name in CONFIGS if name.startswith('rtdetr/')]
V2 = {
    'rtdetrv2/rtdetrv2_r18vd_8xb2-120e_coco.py': (120, 117, 1e-4, False, 20_184_464),
    'rtdetrv2/rtdetrv2_r18vd_dsp_8xb2-36e_coco.py': (36, 33, 1e-4, False, 20_036_432),
    'rtdetrv2/rtdetrv2_r34vd_8xb2-120e_coco.py': (120, 117, 5e-5, True, 31_441_668),
    'rtdetrv2/rtdetrv2_r34vd_dsp_8xb2-12e_coco.py': (12, 10, 5e-5, True, 31_244_292),
    'rtdetrv2/rtdetrv2_r50vd_m_8xb2-84e_coco.py': (84, 81, 1e-5, True, 36_565_260),
    'rtdetrv2/rtdetrv2_r50vd_m_dsp_8xb2-36e_coco.py': (36, 33, 1e-5, True, 36_269_196),
    'rtdetrv2/rtdetrv2_r50vd_8xb2-72e_coco.py': (72, 71, 1e-5, True, 42_862_860),
    'rtdetrv2/rtdetrv2_r50vd_dsp_8xb2-12e_coco.py': (12, 10, 1e-5, True, 42_566_796),
    'rtdetrv2/rtdetrv2_r101vd_8xb2-72e_coco.py': (72, 71, 1e-6, True, 76_527_756),
}
"""RT-DETRv2's: epochs, the first without strong augmentation, the backbone's rate, whether sizes change in training,
and the parameters that the authors' own models train, built from their code (068dfde): with discrete sampling not those
of the places."""


class DEIMv2(NamedTuple):
    """What the authors' files say, ``configs/deimv2`` of Intellindust-AI-Lab/DEIMv2, with those that they include."""

    epochs: int
    mosaic_end: int
    plain: int
    """First epoch without strong augmentation."""
    rate: float
    """Of which the backbone has half."""
    batch: int
    size: int
    smallest: int
    """Boxes whose sides are no longer than so many px are left out."""
    short_side: int
    mosaic: float
    """How often, in its stage."""
    queries: int
    warm_up: int
    flat: tuple
    late: int
    """The first epoch that is matched by the quality cost."""
    copy_blend: float | None
    """How often, as long as there is mosaic; None: it is left out, as is MixUp."""
    parameters: int
    """That the authors' own models train, built from their code (0fff8d4)."""


DEIMV2 = {
    'deimv2/deimv2_hgnetv2-atto_8xb16-500e_coco.py': DEIMv2(
        500, 250, 400, 2e-3, 128, 320, 12, 160, 0.3, 100, 4000, (250, 468, 0.5), 450, None, 508_983
    ),
    'deimv2/deimv2_hgnetv2-femto_8xb16-500e_coco.py': DEIMv2(
        500, 250, 400, 1.6e-3, 128, 416, 10, 208, 0.5, 150, 4000, (250, 468, 0.5), 450, None, 983_943
    ),
    'deimv2/deimv2_hgnetv2-pico_8xb16-500e_coco.py': DEIMv2(
        500, 250, 400, 1.6e-3, 128, 640, 8, 320, 0.5, 200, 4000, (250, 468, 0.5), 450, None, 1_539_537
    ),
    'deimv2/deimv2_hgnetv2-n_8xb4-160e_coco.py': DEIMv2(
        160, 78, 148, 8e-4, 32, 640, 1, 320, 0.5, 300, 2000, (None, None, None), 136, 0.4, 3_600_419
    ),
}


class OnViT(NamedTuple):
    """What the authors' files say of a detector on a ViT: ``configs/deimv2``, or EdgeCrafter's ``configs/ecdet``."""

    epochs: int
    mosaic_end: int
    plain: int
    """First epoch without strong augmentation."""
    vit_rate: float
    decay: float
    mosaic: float
    """How often, in its stage; of MixUp the same."""
    repeats: int
    """Of 640 among the sizes; 0: no other size."""
    late: int | None
    """The first epoch that is matched by the quality cost."""
    parameters: int
    """Of the authors' own models, built from their code (0fff8d4; 706d037)."""


ON_VIT = {
    'deimv2/deimv2_vit-s_8xb4-132e_coco.py': OnViT(132, 64, 120, 2.5e-5, 1e-4, 0.5, 20, 100, 9_779_838),
    'deimv2/deimv2_vit-m_8xb4-102e_coco.py': OnViT(102, 49, 90, 2.5e-5, 1e-4, 0.5, 6, 80, 18_357_750),
    'deimv2/deimv2_vit-l_8xb4-68e_coco.py': OnViT(68, 34, 60, 1.25e-5, 1.25e-4, 0.5, 3, 50, 32_551_214),
    'deimv2/deimv2_vit-x_8xb4-58e_coco.py': OnViT(58, 29, 50, 1e-5, 1.25e-4, 0.5, 3, 45, 51_211_736),
    'ecdet/ecdet_ecvit-s_8xb4-74e_coco.py': OnViT(74, 36, 72, 2.5e-5, 1e-4, 0.75, 0, None, 9_884_102),
    'ecdet/ecdet_ecvit-m_8xb4-62e_coco.py': OnViT(62, 30, 60, 2.5e-5, 1e-4, 0.75, 0, None, 19_431_502),
    'ecdet/ecdet_ecvit-l_8xb4-50e_coco.py': OnViT(50, 24, 48, 5e-6, 1.25e-4, 1.0, 0, None, 32_966_110),
    'ecdet/ecdet_ecvit-x_8xb4-50e_coco.py': OnViT(50, 24, 48, 2.5e-6, 1.25e-4, 1.0, 0, None, 49_941_982),
}


class DFine(NamedTuple):
    """What the authors' files say, ``configs/dfine`` of Peterande/D-FINE, with those that they include."""

    epochs: int
    stop: int | None
    """First epoch without strong augmentation and other sizes; None: there is none."""
    rate: float
    backbone_rate: float
    decay: float
    repeats: int
    """Of 640 among the sizes; 0: no other size."""
    batch: int = 32


DFINE = {
    'dfine/dfine_hgnetv2-n_8xb16-160e_coco.py': DFine(160, 148, 8e-4, 4e-4, 1e-4, 0, batch=128),
    'dfine/dfine_hgnetv2-s_8xb4-132e_coco.py': DFine(132, 120, 2e-4, 1e-4, 1e-4, 20),
    'dfine/dfine_hgnetv2-m_8xb4-132e_coco.py': DFine(132, 120, 2e-4, 2e-5, 1e-4, 6),
    'dfine/dfine_hgnetv2-l_8xb4-80e_coco.py': DFine(80, 72, 2.5e-4, 1.25e-5, 1.25e-4, 4),
    'dfine/dfine_hgnetv2-x_8xb4-80e_coco.py': DFine(80, 72, 2.5e-4, 2.5e-6, 1.25e-4, 3),
    'dfine/dfine_hgnetv2-n_8xb16-48e_objects365.py': DFine(48, None, 8e-4, 4e-4, 1e-4, 0, batch=128),
    'dfine/dfine_hgnetv2-s_8xb4-36e_objects365.py': DFine(36, None, 2.5e-4, 1.25e-4, 1.25e-4, 20),
    'dfine/dfine_hgnetv2-m_8xb4-36e_objects365.py': DFine(36, None, 2.5e-4, 2.5e-5, 1.25e-4, 6),
    'dfine/dfine_hgnetv2-l_8xb4-24e_objects365.py': DFine(24, None, 2.5e-4, 1.25e-5, 1.25e-4, 4),
    'dfine/dfine_hgnetv2-x_8xb4-24e_objects365.py': DFine(24, None, 2.5e-4, 2.5e-6, 1.25e-4, 3),
    'dfine/dfine_hgnetv2-n_objects365_8xb16-64e_coco.py': DFine(64, 56, 8e-4, 4e-4, 1e-4, 0, batch=128),
    'dfine/dfine_hgnetv2-s_objects365_8xb4-64e_coco.py': DFine(64, 56, 2.5e-4, 1.25e-4, 1.25e-4, 10),
    'dfine/dfine_hgnetv2-m_objects365_8xb4-56e_coco.py': DFine(56, 48, 2.5e-4, 2.5e-5, 1.25e-4, 6),
    'dfine/dfine_hgnetv2-l_objects365_8xb4-36e_coco.py': DFine(36, 30, 2.5e-4, 1.25e-5, 1.25e-4, 4),
    'dfine/dfine_hgnetv2-x_objects365_8xb4-36e_coco.py': DFine(36, 30, 2.5e-4, 2.5e-6, 1.25e-4, 3),
}
DFINE_SIZES = {
    'n': 3_782_691,
    's': 10_321_875,
    'm': 19_590_062,
    'l': 31_219_222,
    'x': 62_596_118,
}
"""Parameters that the authors' own models train, built from their code (4a1f73a)."""


def stands_for_others(name: str) -> bool:
    """Of those that only tune for discrete sampling, or of D-FINE with Objects365, one size is built."""
    return ('_dsp_' not in name or '_r18vd_' in name) and ('objects365' not in name or '-s_' in name)


def build_on_meta(cfg: Config) -> nn.Module:
    """The model, of whose weights only the shapes are needed."""
    with torch.device('meta'):
        return MODELS.build(cfg.model)


@pytest.fixture(params=[name for name in CONFIGS if stands_for_others(name)])
def config(request: pytest.FixtureRequest) -> Config:
    return shipped_config(request.param)


def test_there_are_configs() -> None:
    assert len(COCO) >= 5


def test_builds_trains_and_predicts(config: Config) -> None:
    config.model.data_preprocessor.batch_augments = None
    before = copy.deepcopy(config.model)
    model = MODELS.build(config.model)
    model.init_weights()
    # mmdet's SingleStageDetector writes train_cfg and test_cfg into the head's config; nothing else may change
    for key in ('train_cfg', 'test_cfg'):
        config.model.bbox_head.pop(key, None)
    assert config.model == before
    assert set(build_on_meta(config).state_dict()) == set(model.state_dict())

    num_classes = config.model.bbox_head.num_classes
    optimizer = build_optim_wrapper(model, config.optim_wrapper)
    images, samples = random_batch([2, 0], 96, 128, num_classes)
    watched = {n: p for n, p in model.named_parameters() if n.startswith('bbox_head.decoder.cls_heads.0')}
    was = {n: p.detach().clone() for n, p in watched.items()}
    loss = sum(model.train().loss(images, samples).values())
    # the first step of a warm-up may move weights by less than they can resolve
    for group in optimizer.param_groups:
        group['lr'] = max(group['lr'], 1e-4)
    optimizer.update_params(loss)
    assert torch.isfinite(loss) and all(not torch.equal(p, was[n]) for n, p in watched.items())

    with torch.no_grad():
        results = model.eval().predict(images, samples)
    for result in results:
        boxes = result.pred_instances.bboxes
        # 96 x 128 has 252 tokens: never fewer query-class pairs than detections asked for
        assert len(boxes) == config.model.test_cfg.max_per_img
        assert torch.isfinite(boxes).all() and boxes[:, 0::2].max() <= 128 and boxes[:, 1::2].max() <= 96
        assert result.pred_instances.labels.max() < num_classes


def test_one_import_line(config: Config) -> None:
    assert config.custom_imports == {'imports': ['mmdet_iouquery'], 'allow_failed_imports': False}
    assert config.default_scope == 'mmdet'


@pytest.mark.parametrize('name', [*COCO, *V2])
def test_the_papers_recipe(name: str) -> None:
    cfg = shipped_config(name)
    epochs, _, _, multi_scale, _ = V2.get(name, (72, None, None, True, None))
    assert cfg.train_cfg.max_epochs == epochs and cfg.auto_scale_lr.base_batch_size == 16
    assert cfg.train_dataloader.batch_size * 8 == 16
    wrapper = cfg.optim_wrapper
    assert wrapper.optimizer == {'type': 'AdamW', 'lr': 1e-4, 'betas': (0.9, 0.999), 'weight_decay': 1e-4}
    assert wrapper.clip_grad.max_norm == 0.1
    (ema,) = (hook for hook in cfg.custom_hooks if hook.type == 'EMAHook')
    assert (ema.momentum, ema.gamma, ema.update_buffers) == (1e-4, 2000, True)
    preprocessor = cfg.model.data_preprocessor
    if multi_scale:
        sizes = preprocessor.batch_augments[0].sizes
        assert sizes == [480, 512, 544, 576, 608, 640, 640, 640, 672, 704, 736, 768, 800]
    else:
        assert preprocessor.batch_augments is None
    assert (preprocessor.mean, preprocessor.std, preprocessor.bgr_to_rgb) == ([0] * 3, [255] * 3, True)
    pipeline = [step.type for step in cfg.train_dataloader.dataset.pipeline]
    order = ['DistortColours', 'ExpandAndCrop', 'RandomFlip', 'AntialiasedResize']
    assert [step for step in pipeline if step in order] == order


def test_the_recipe_of_every_rtdetrv2_is_known() -> None:
    assert set(V2) == {name for name in CONFIGS if name.startswith('rtdetrv2/')}


@pytest.mark.parametrize('name', V2)
def test_rtdetrv2_ends_without_strong_augmentation(name: str) -> None:
    """From one epoch on images are flipped and resized alone, and batches keep their size."""
    cfg, (epochs, stop, _, multi_scale, _) = shipped_config(name), V2[name]
    (switch,) = (hook for hook in cfg.custom_hooks if hook.type == 'PipelineSwitchHook')
    assert switch.switch_epoch == stop < epochs
    strong = cfg.train_dataloader.dataset.pipeline
    assert switch.switch_pipeline == [step for step in strong if step.type not in ('DistortColours', 'ExpandAndCrop')]
    assert len(strong) == len(switch.switch_pipeline) + 2
    if multi_scale:
        assert cfg.model.data_preprocessor.batch_augments[0].stop_epoch == stop
    assert (cfg.model.bbox_head.decoder.get('sampling') == 'discrete') == ('_dsp_' in name)


@pytest.mark.parametrize('name', V2)
def test_rtdetrv2_and_rtdetr_train_as_many_parameters_as_the_authors(name: str) -> None:
    """Of one backbone both have as many."""
    first = f'{name.split("_8xb2")[0].replace("v2", "")}_8xb2-72e_coco.py'
    for each in {name, first}.intersection([*COCO, *V2]):
        with torch.device('meta'):
            model = MODELS.build(shipped_config(each).model)
        assert sum(p.numel() for p in model.parameters() if p.requires_grad) == V2[name][-1]


@pytest.mark.parametrize('name', [name for name in V2 if '_dsp_' in name])
def test_discrete_sampling_is_tuned_from_the_authors_weights(name: str) -> None:
    model = Config.fromfile(config_path(name)).model
    depth = name.split('_')[1]
    assert model.init_cfg.source == 'rtdetrv2' and f'/rtdetrv2_{depth}' in model.init_cfg.checkpoint
    assert ('_m_' in model.init_cfg.checkpoint) == ('_m_' in name) and model.backbone.init_cfg is None


@pytest.mark.parametrize('name', DFINE)
def test_the_recipe_of_dfine(name: str) -> None:
    cfg, recipe = shipped_config(name), DFINE[name]
    first, second = 'objects365.py' in name, 'objects365_' in name
    assert cfg.train_cfg.max_epochs == recipe.epochs and cfg.auto_scale_lr.base_batch_size == recipe.batch
    assert cfg.train_dataloader.batch_size * 8 == recipe.batch
    wrapper = cfg.optim_wrapper
    expected = {'type': 'AdamW', 'lr': recipe.rate, 'betas': (0.9, 0.999), 'weight_decay': recipe.decay}
    assert wrapper.optimizer == expected and wrapper.clip_grad.max_norm == 0.1
    assert wrapper.paramwise_cfg.lr_mult.backbone * recipe.rate == pytest.approx(recipe.backbone_rate)

    check, ema, *switch = cfg.custom_hooks
    assert check.type == 'NumClassCheckHook' and (ema.momentum, ema.update_buffers) == (1e-4, True)
    assert [hook.switch_epoch for hook in switch] == ([] if recipe.stop is None else [recipe.stop])
    if second:  # neither the average nor the rate warms up
        assert ema.type == 'EMAHook' and ema.ema_type == 'ExponentialMovingAverage' and not cfg.param_scheduler
    else:
        (warm_up,) = cfg.param_scheduler
        assert ema.ema_type == 'ExpMomentumEMA' and ema.gamma == 1000 and warm_up.end == 500
    strong = cfg.train_dataloader.dataset.pipeline
    assert {'DistortColours', 'ExpandAndCrop'} < {step.type for step in strong}

    augments = cfg.model.data_preprocessor.batch_augments
    if recipe.repeats:
        (augment,) = augments
        assert augment.sizes == [480, 512, 544, 576, 608, *[640] * recipe.repeats, 672, 704, 736, 768, 800]
        assert augment.get('stop_epoch') == recipe.stop
    else:
        assert augments is None
    assert cfg.model.bbox_head.num_classes == (365 if first else 80)
    loaders = (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader)
    assert {loader.dataset.type for loader in loaders} == {'Objects365V2Dataset' if first else 'CocoDataset'}
    assert bool(cfg.load_from) == second


def test_the_recipe_of_every_dfine_is_known() -> None:
    assert set(DFINE) == {name for name in CONFIGS if name.startswith('dfine/')}


@pytest.mark.parametrize(
    ('name', 'steps'),
    [('rtdetrv2/rtdetrv2_r18vd_8xb2-120e_coco.py', 2000), ('dfine/dfine_hgnetv2-l_8xb4-80e_coco.py', 500)],
)
def test_the_warm_up_is_the_authors(name: str, steps: int) -> None:
    """Step i of n, from 0 on, is at (i + 1) / n of the rate, and all after them at the whole."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    (warm_up,) = shipped_config(name).param_scheduler
    scheduler = PARAM_SCHEDULERS.build(dict(warm_up), default_args={'optimizer': optimizer})
    rates = []
    for _ in range(steps + 2):
        rates.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        scheduler.step()
    assert rates == about([min(1, (i + 1) / steps) for i in range(steps + 2)], 'doubles')


@pytest.mark.parametrize('name', [name for name in DFINE if 'objects365' not in name])
def test_dfine_has_as_many_parameters_as_the_authors(name: str) -> None:
    model = build_on_meta(shipped_config(name))
    size = name.split('hgnetv2-')[1][0]
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == DFINE_SIZES[size]


def rates_of(name: str) -> tuple[float, float, float]:
    """The rate, the backbone's and the decay."""
    if name in DFINE:
        return DFINE[name].rate, DFINE[name].backbone_rate, DFINE[name].decay
    return 1e-4, V2[name][2] if name in V2 else 1e-6 if 'r101' in name else 1e-5, 1e-4


@pytest.mark.parametrize('name', [name for name in (*COCO, *V2, *DFINE) if stands_for_others(name)])
def test_parameter_groups(name: str) -> None:
    """Norms, affine steps and biases are not decayed; the backbone learns at its own part of the rate."""
    cfg = shipped_config(name)
    model = build_on_meta(cfg)
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    groups = {id(p): group for group in optimizer.param_groups for p in group['params']}
    norms = {
        f'{prefix}.{leaf}'
        for prefix, module in model.named_modules()
        if isinstance(module, (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, RMSNorm, LearnableAffine))
        for leaf in dict(module.named_parameters(recurse=False))
    }
    rate, backbone_rate, decay = rates_of(name)
    trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    assert len(trained) == len(groups)
    for parameter_name, parameter in trained:
        group = groups[id(parameter)]
        undecayed = parameter_name in norms or parameter_name.endswith('bias')
        assert group['weight_decay'] == (0 if undecayed else decay), parameter_name
        expected = backbone_rate if parameter_name.startswith('backbone') else rate
        assert group['lr'] == pytest.approx(expected), parameter_name


def quickstart_written(folder: Path, **settings: int) -> Config:
    """The config that the quickstart writes for a set of its own."""
    names = (folder / name for name in ('train.json', 'train', 'val.json', 'val'))
    path = folder / 'config.py'
    path.write_text(config_text(CocoSet(*names, classes=('a', 'b')), **settings))
    return Config.fromfile(path)


def test_the_quickstart_trains_by_the_shipped_recipe(tmp_path: Path) -> None:
    shipped = shipped_config('quickstart/rtdetr_r18vd_digits.py')
    written = quickstart_written(tmp_path, iters=shipped.max_iters, image_size=128)
    assert written.param_scheduler == shipped.param_scheduler
    assert written.optim_wrapper == shipped.optim_wrapper
    assert written.model.bbox_head.denoising == shipped.model.bbox_head.denoising
    assert written.train_dataloader.batch_size == shipped.train_dataloader.batch_size
    assert written.model.bbox_head.criterion == shipped.model.bbox_head.criterion
    assert written.model.bbox_head.query_selector == shipped.model.bbox_head.query_selector
    assert written.model.test_cfg == {**shipped.model.test_cfg, 'keep_selected': True}


@pytest.mark.parametrize(('objects', 'queries'), [([3, 25], 50), ([3, 26], 52), ([40, 7], 80), ([1, 151], 300)])
def test_the_quickstart_has_queries_for_the_fullest_image(tmp_path: Path, objects: list[int], queries: int) -> None:
    """Two an object of training or validation, whichever has more, from 50 to 300."""
    files = [tmp_path / f'{i}.json' for i in range(2)]
    for path, count in zip(files, objects):
        images = [{'id': i, 'file_name': f'{i}.png', 'width': 9, 'height': 9} for i in (1, 2)]
        boxes = [{'id': i, 'image_id': 2, 'category_id': 1, 'bbox': [0, 0, 2, 2], 'area': 4} for i in range(count)]
        categories = [{'id': 1, 'name': 'a'}]
        path.write_text(json.dumps({'images': images, 'annotations': boxes, 'categories': categories}))
    coco = CocoSet(files[0], tmp_path, files[1], tmp_path, classes=('a',))
    assert enough_queries(coco) == queries
    written = quickstart_written(tmp_path, iters=10, image_size=96, num_queries=queries)
    assert written.model.bbox_head.query_selector.num_queries == written.model.test_cfg.max_per_img == queries


@pytest.mark.parametrize(('iters', 'warm_up'), [(2, 2), (5, 2), (12, 2), (60, 10), (300, 50), (900, 150), (2000, 150)])
def test_the_quickstarts_warm_up_is_at_most_a_sixth_of_the_run(tmp_path: Path, iters: int, warm_up: int) -> None:
    """The same rates in a run of any length: up in the warm-up, down to 2 % in the second half."""
    cfg = quickstart_written(tmp_path, iters=iters, image_size=96)
    up, down = cfg.param_scheduler
    assert (up.begin, up.end, down.begin, down.end) == (0, warm_up, iters // 2, iters)
    assert (up.start_factor, down.start_factor, down.end_factor) == (0.01, 1.0, 0.02)
    assert cfg.train_cfg.max_iters == iters


def test_the_quickstart_differs_from_the_recipe_for_the_digits_in_loss_queries_and_steps() -> None:
    recipe, cfg = shipped_config('_base_/rtdetr_r18vd_digits.py'), shipped_config('quickstart/rtdetr_r18vd_digits.py')
    assert cfg.model.bbox_head.criterion.pop('loss_cls') == {'type': 'MatchabilityAwareLoss', 'gamma': 1.5}
    assert recipe.model.bbox_head.criterion.pop('loss_cls').type == 'IoUVarifocalLoss'
    assert (recipe.model.bbox_head.query_selector.num_queries, recipe.model.test_cfg.max_per_img) == (100, 100)
    recipe.model.bbox_head.query_selector.num_queries = recipe.model.test_cfg.max_per_img = 50
    assert cfg.model == recipe.model
    (up, down), (recipe_up, recipe_down) = cfg.param_scheduler, recipe.param_scheduler
    assert up == {**recipe_up, 'end': 150} and down == {**recipe_down, 'begin': 450, 'end': 900}
    assert cfg.train_cfg == {**recipe.train_cfg, 'max_iters': 900, 'val_interval': 450}
    for entry in ('optim_wrapper', 'train_dataloader', 'val_dataloader', 'val_evaluator', 'custom_hooks', 'randomness'):
        assert cfg[entry] == recipe[entry]


def test_dfine_on_the_digits_is_dfine_n_by_the_recipe_for_the_digits() -> None:
    """The model is that for COCO but for what the docstring says; nothing but the model differs from the recipe."""
    recipe, cfg = (
        shipped_config(f'{name}_digits.py') for name in ('_base_/rtdetr_r18vd', 'quickstart/dfine_hgnetv2-n')
    )
    assert {key: cfg[key] for key in cfg if key not in ('model', 'embed_dims', 'num_levels')} == {
        key: recipe[key] for key in recipe if key not in ('model', 'embed_dims', 'num_levels')
    }
    model = shipped_config('dfine/dfine_hgnetv2-n_8xb16-160e_coco.py').model
    model.backbone.out_indices, model.neck.in_channels = (1, 2), [256, 512]
    model.bbox_head.num_classes = 10
    model.bbox_head.query_selector.num_queries, model.bbox_head.denoising.num_denoising = 100, 30
    model.test_cfg.max_per_img = 100
    backbone, own = model.pop('backbone'), cfg.model.pop('backbone')
    as_built = {'frozen_stages': -1, 'norm_eval': False, 'norm_cfg': {'type': 'BN', 'requires_grad': True}}
    assert {**as_built, **own} == backbone  # by default
    assert cfg.model == model


@pytest.mark.parametrize('name', [name for name in CONFIGS if name.startswith('ablations/rtdetr')])
def test_ablations_share_the_recipe_for_the_digits(name: str) -> None:
    """Fewer steps, and nothing else of the training differs."""
    recipe, cfg = shipped_config('_base_/rtdetr_r18vd_digits.py'), shipped_config(name)
    assert cfg.optim_wrapper == recipe.optim_wrapper
    (up, down), (recipe_up, recipe_down) = cfg.param_scheduler, recipe.param_scheduler
    assert up == {**recipe_up, 'end': 50} and down == {**recipe_down, 'begin': 150, 'end': 300}
    assert (cfg.train_cfg.max_iters, recipe.train_cfg.max_iters) == (300, 800)
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        assert cfg[loader] == recipe[loader]
        assert [step.scale for step in cfg[loader].dataset.pipeline if step.type == 'Resize'] == [(128, 128)]


@pytest.mark.parametrize('name', [name for name in CONFIGS if name.startswith('ablations/generations/')])
def test_generations_share_the_recipe_for_the_digits(name: str) -> None:
    """DEIM's differ by images up to half-way and the curve between the same rates; the others in the model alone.

    With half of the queries there are 900 steps instead of 800, of the same curve.
    """
    recipe, cfg = shipped_config('_base_/rtdetr_r18vd_digits.py'), shipped_config(name)
    steps = 900 if '50-queries' in name else 800
    assert cfg.train_cfg == {**recipe.train_cfg, 'max_iters': steps, 'val_interval': steps // 2}
    for entry in ('optim_wrapper', 'val_dataloader', 'test_dataloader', 'randomness'):
        assert cfg[entry] == recipe[entry]
    loader, theirs = cfg.train_dataloader, recipe.train_dataloader
    if ('mosaic' in name or 'deim' in name) and 'plain-images' not in name:
        (hook,) = [hook for hook in cfg.custom_hooks if hook.type == 'AugmentationTimetableHook']
        assert hook.timetable == [('plain', 0), ('mosaic', 133), ('plain', 400)] and not hook.by_epoch
        images = loader.dataset.dataset
        assert {**images, 'pipeline': None} == {**theirs.dataset, 'pipeline': None}
        assert loader.dataset.pipeline[1:] == theirs.dataset.pipeline[2:]
        assert {**loader, 'dataset': None} == {**theirs, 'dataset': None}
    else:
        assert loader == theirs and cfg.custom_hooks == recipe.custom_hooks
    if 'deim' in name:
        (rate,) = cfg.param_scheduler
        assert (rate.type, rate.warmup_iters, rate.flat_end, rate.decay_end) == ('FlatCosineLR', 133, 400, 800)
        assert rate.gamma == recipe.param_scheduler[1].end_factor
    else:
        up, down = recipe.param_scheduler
        assert cfg.param_scheduler == [{**up, 'end': steps // 6}, {**down, 'begin': steps // 2, 'end': steps}]


def test_metafile_names_every_coco_config() -> None:
    v4 = [f'rtdetrv4/rtdetrv4_hgnetv2-{name}_coco.py' for name in RTDETRV4]
    for name in [*COCO, *V2, *DFINE, *DEIMV2, *ON_VIT, *v4]:
        text = (Path(__file__).parents[1] / 'configs' / name.split('/')[0] / 'metafile.yml').read_text()
        assert f'Config: configs/{name}\n' in text
        # whose AP it is, which mim shows and whoever reads the file sees first
        assert text.startswith('# Results, parameters and FLOPs are those that') and 'Reported By: authors\n' in text


@pytest.mark.parametrize('name', config_names())
def test_trainings_meant_for_a_cpu_alone_are_accelerated_there(name: str) -> None:
    hooks = [hook.type for hook in (shipped_config(name).get('default_hooks') or {}).values()]
    assert ('AccelerateTrainingHook' in hooks) == name.startswith(('quickstart/', 'ablations/'))


@pytest.mark.parametrize('name', config_names())
def test_mmdets_tools_find_what_loads_images_and_annotations(name: str) -> None:
    """They look by mmdet's class; what is built of it is ours where unusable images are left out of training."""
    train = shipped_config(name).train_dataloader.dataset
    loading = get_loading_pipeline((train.get('dataset') or train).pipeline)
    assert [step.type for step in loading] == ['LoadImageFromFile', 'LoadAnnotations']
    load = TRANSFORMS.build(loading[0])
    assert isinstance(load, LoadCheckedImage) == ('on_error' in loading[0])
    assert isinstance(load, LoadCheckedImage) or name not in CONFIGS


@pytest.mark.parametrize('name', config_names())
def test_mmdets_tools_may_replace_the_loader_of_test_pipelines(name: str) -> None:
    """``DetInferencer`` looks for it by name, ``inference_detector`` takes it to be the first step.

    What they put there keeps the scope, and so reads files by this package's loader where the config names that.
    """
    load = shipped_config(name).test_dataloader.dataset.pipeline[0]
    kind = LoadCheckedImage if load.get('_scope_') else LoadImageFromFile
    assert load.type == 'LoadImageFromFile' and type(TRANSFORMS.build(load)) is kind
    assert kind is LoadCheckedImage or name not in CONFIGS
    replaced = TRANSFORMS.build({**load, 'type': 'mmdet.InferencerLoader'})
    assert type(replaced.from_file) is kind
    image = np.zeros((4, 6, 3), dtype=np.uint8)
    assert replaced(image)['img'] is image


DEIM = {
    # epochs, mosaic to, plain from, rate, backbone's rate, whether it falls, how often 640 px stands in the sizes
    'dfine_hgnetv2-n_8xb16-160e': (160, 78, 148, 8e-4, 4e-4, False, 0),
    'dfine_hgnetv2-s_8xb4-132e': (132, 64, 120, 4e-4, 2e-4, True, 20),
    'dfine_hgnetv2-m_8xb4-102e': (102, 49, 90, 4e-4, 4e-5, True, 6),
    'dfine_hgnetv2-l_8xb4-58e': (58, 29, 50, 5e-4, 2.5e-5, True, 4),
    'dfine_hgnetv2-x_8xb4-58e': (58, 29, 50, 5e-4, 5e-6, True, 3),
    'rtdetrv2_r18vd_8xb2-120e': (120, 64, 117, 2e-4, 2e-4, True, 3),
    'rtdetrv2_r34vd_8xb2-120e': (120, 64, 117, 2e-4, 1e-4, True, 3),
    'rtdetrv2_r50vd_m_8xb2-60e': (60, 34, 58, 2e-4, 2e-5, True, 3),
    'rtdetrv2_r50vd_8xb2-60e': (60, 34, 58, 2e-4, 2e-5, True, 3),
    'rtdetrv2_r101vd_8xb2-60e': (60, 34, 58, 2e-4, 2e-6, True, 3),
}


def test_the_recipe_of_every_deim_is_known() -> None:
    assert {f'deim/deim-{name}_coco.py' for name in DEIM} == {n for n in config_names() if n.startswith('deim/')}


@pytest.mark.parametrize('name', DEIM)
def test_deims_recipe(name: str) -> None:
    """Stages of augmentation, curve of the rate, weight decay, batches and what trains, by the authors' yml files."""
    epochs, mosaic, plain, rate, backbone_rate, falls, repeats = DEIM[name]
    cfg = shipped_config(f'deim/deim-{name}_coco.py')
    assert cfg.train_cfg.max_epochs == epochs and cfg.optim_wrapper.optimizer.lr == rate
    large = name.startswith(('dfine_hgnetv2-l', 'dfine_hgnetv2-x'))
    assert cfg.optim_wrapper.optimizer.weight_decay == (1.25e-4 if large else 1e-4)
    batch = 128 if name.startswith('dfine_hgnetv2-n') else 32 if name.startswith('dfine') else 16
    assert cfg.auto_scale_lr.base_batch_size == 8 * cfg.train_dataloader.batch_size == batch
    assert rate * cfg.optim_wrapper.paramwise_cfg.lr_mult.backbone == pytest.approx(backbone_rate)
    (timetable,) = (hook.timetable for hook in cfg.custom_hooks if hook.type == 'AugmentationTimetableHook')
    assert [list(stage) for stage in timetable] == [['plain', 0], ['mosaic', 4], ['strong', mosaic], ['plain', plain]]
    (curve,) = cfg.param_scheduler
    assert (curve.type, curve.warmup_iters) == ('FlatCosineLR', 2000)
    assert (curve.get('flat_end'), curve.get('decay_end')) == ((mosaic, plain) if falls else (None, None))
    assert curve.get('gamma', 0.5) == 0.5
    mix_up, *scales = cfg.model.data_preprocessor.batch_augments
    assert mix_up.type == 'BatchMixUp' and mix_up.stages == ['mosaic']
    assert [scale.sizes for scale in scales] == [[*range(480, 640, 32), *[640] * repeats, *range(672, 832, 32)]] * bool(
        repeats
    )
    assert [scale.stop_epoch for scale in scales] == [plain] * bool(repeats)
    assert cfg.model.bbox_head.criterion.loss_cls.type == 'MatchabilityAwareLoss'
    assert not cfg.model.backbone.get('norm_eval') and cfg.model.backbone.get('frozen_stages', -1) == -1
    assert cfg.model.bbox_head.criterion.get('union_matching', False) == name.startswith('dfine')
    (average,) = (hook for hook in cfg.custom_hooks if hook.type == 'EMAHook')
    assert average.gamma == (1000 if name.startswith('dfine') else 2000)


@pytest.mark.parametrize(
    ('name', 'number'),
    [
        ('dfine_hgnetv2-n_8xb16-160e', 3782691),
        ('dfine_hgnetv2-s_8xb4-132e', 10321875),
        ('dfine_hgnetv2-m_8xb4-102e', 19590062),
        ('dfine_hgnetv2-l_8xb4-58e', 31289846),
        ('dfine_hgnetv2-x_8xb4-58e', 62715478),
        ('rtdetrv2_r18vd_8xb2-120e', 20183440),
        ('rtdetrv2_r34vd_8xb2-120e', 31440644),
        ('rtdetrv2_r50vd_m_8xb2-60e', 33198864),
        ('rtdetrv2_r50vd_8xb2-60e', 42943596),
        ('rtdetrv2_r101vd_8xb2-60e', 76660716),
    ],
)
def test_deims_parameters_are_the_authors(name: str, number: int) -> None:
    """On D-FINE theirs are two more: the constants of the bins, which are buffers here."""
    model = build_on_meta(shipped_config(f'deim/deim-{name}_coco.py'))
    assert sum(parameter.numel() for parameter in model.parameters()) == number


RTDETRV4 = {
    # DEIM's config, weight, rho, delta, default weight, from which epoch, channels of the student's map
    's_8xb4-132e': (5, 11, 1, 20, 121, 256),
    'm_8xb4-102e': (5, 3.5, 0.25, 15, 91, 256),
    'l_8xb4-58e': (15, 2, 0.1, 15, 51, 256),
    'x_8xb4-58e': (20, 2, 0.25, 20, 51, 384),
}


def test_the_distillation_of_every_rtdetrv4_is_known() -> None:
    assert {f'rtdetrv4/rtdetrv4_hgnetv2-{n}_coco.py' for n in RTDETRV4} == {
        name for name in config_names() if name.startswith('rtdetrv4/')
    }


@pytest.mark.parametrize('name', RTDETRV4)
def test_rtdetrv4_is_deim_with_a_teacher(name: str) -> None:
    """Model and recipe, but for the distillation by the authors' yml files."""
    weight, rho, delta, default_weight, default_from, channels = RTDETRV4[name]
    cfg, deim = (
        shipped_config(f'{family}_hgnetv2-{name}_coco.py') for family in ('rtdetrv4/rtdetrv4', 'deim/deim-dfine')
    )
    given, settings = cfg.model.data_preprocessor, deim.model.data_preprocessor
    assert {**given, **settings, 'type': 'DistillingDataPreprocessor'} == given
    assert (given.student, given.student_channels, given.teacher_channels) == ('neck.encoder.0', channels, 768)
    assert given.loss_distill == {'type': 'CosineFeatureLoss', 'loss_weight': weight}
    assert (given.teacher.model.backbone.arch, given.teacher.shrink) == ('dinov3-b', 2)
    *others, shares = cfg.custom_hooks
    assert others == deim.custom_hooks
    expected = {'rho': rho, 'delta': delta, 'default_weight': default_weight, 'default_from': default_from}
    assert shares == {'type': 'GradientShareHook', 'module': 'neck.encoder', **expected}
    cfg.model.data_preprocessor, cfg.custom_hooks = settings, deim.custom_hooks
    variables = {'dinov3_weights', 'dinov3_vitb16'}
    assert {key: value for key, value in cfg.to_dict().items() if key not in variables} == deim.to_dict()


@pytest.mark.parametrize(
    ('name', 'number', 'projector'),
    [
        ('s_8xb4-132e', 10519251, 197376),
        ('m_8xb4-102e', 19787438, 197376),
        ('l_8xb4-58e', 31487222, 197376),
        ('x_8xb4-58e', 63011158, 295680),
    ],
)
def test_rtdetrv4s_parameters_are_the_authors(name: str, number: int, projector: int) -> None:
    """Theirs are two more, as DEIM's; the projector leads to the teacher's width."""
    model = build_on_meta(shipped_config(f'rtdetrv4/rtdetrv4_hgnetv2-{name}_coco.py'))
    assert sum(parameter.numel() for parameter in model.parameters()) == number
    assert sum(parameter.numel() for parameter in model.data_preprocessor.projector.parameters()) == projector


def test_deims_r50_m_has_no_layers_but_those_that_predict() -> None:
    """Where RT-DETRv2's has six, of which three predict."""
    config = shipped_config('deim/deim-rtdetrv2_r50vd_m_8xb2-60e_coco.py')
    layers = build_on_meta(config).bbox_head.decoder.layers
    assert len(layers) == config.model.test_cfg.num_decoder_layers == 3


def test_the_recipe_of_every_deimv2_with_an_hgnetv2_is_known() -> None:
    assert set(DEIMV2) == {name for name in config_names() if name.startswith('deimv2/deimv2_hgnetv2')}


@pytest.mark.parametrize('name', DEIMV2)
def test_deimv2s_recipe_and_parameters(name: str) -> None:
    """Theirs have two parameters more: the constants of the bins, which are buffers here."""
    cfg, recipe = shipped_config(name), DEIMV2[name]
    small = '-n_' not in name
    assert cfg.train_cfg.max_epochs == recipe.epochs and cfg.auto_scale_lr.base_batch_size == recipe.batch
    assert cfg.train_dataloader.batch_size * 8 == recipe.batch
    optimizer = {'type': 'AdamW', 'lr': recipe.rate, 'betas': (0.9, 0.999), 'weight_decay': 1e-4}
    assert cfg.optim_wrapper.optimizer == optimizer and cfg.optim_wrapper.clip_grad.max_norm == 0.1
    assert cfg.optim_wrapper.paramwise_cfg.lr_mult == {'backbone': 0.5}
    check, average, timetable, late = cfg.custom_hooks
    assert check.type == 'NumClassCheckHook' and (average.momentum, average.gamma) == (1e-4, 1000)
    stages = [('plain', 0), ('mosaic', 4), ('strong', recipe.mosaic_end), ('plain', recipe.plain)]
    assert (timetable.type, timetable.timetable) == ('AugmentationTimetableHook', stages)
    assert late == {'type': 'MatchingCostHook', 'begin': recipe.late}
    (curve,) = cfg.param_scheduler
    assert (curve.type, curve.warmup_iters) == ('FlatCosineLR', recipe.warm_up)
    assert (curve.get('flat_end'), curve.get('decay_end'), curve.get('gamma')) == recipe.flat

    mosaic, _, *others = cfg.train_dataloader.dataset.pipeline
    (choice,) = mosaic.transforms
    assert mosaic.stages == ['mosaic'] and choice.prob == [recipe.mosaic, 1 - recipe.mosaic]
    assert choice.transforms[0][0] == {'type': 'QuarterMosaic', 'short_side': recipe.short_side}
    filters = [step.min_gt_bbox_wh for step in others if step.type == 'FilterAnnotations']
    assert filters == [(recipe.smallest, recipe.smallest)] * 2
    resized = [step for step in others if step.type == 'AntialiasedResize']
    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        resized += [step for step in loader.dataset.pipeline if step.type == 'Resize']
    assert [step.scale for step in resized] == [(recipe.size, recipe.size)] * 3
    augments = cfg.model.data_preprocessor.get('batch_augments') or []
    if recipe.copy_blend is None:
        assert augments == []
    else:
        mix_up, copy_blend = augments
        assert mix_up == {'type': 'BatchMixUp', 'prob': 0.5, 'stages': ['mosaic']}
        check_copy_blend(copy_blend, recipe.copy_blend, ['mosaic'])

    criterion, decoder = cfg.model.bbox_head.criterion, cfg.model.bbox_head.decoder
    assert criterion.loss_cls.type == 'MatchabilityAwareLoss' and criterion.assigner.quality_cost == {'iou_power': 4}
    assert criterion.union_matching != small
    assert (criterion.loss_fgl is None, criterion.loss_ddf is None) == (small, small)
    assert (decoder.get('fusion'), decoder.get('share_bbox_head')) == (('add', True) if small else (None, None))
    assert cfg.model.bbox_head.query_selector.num_queries == recipe.queries
    model = build_on_meta(cfg)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == recipe.parameters


def check_copy_blend(augment: ConfigDict, prob: float, stages: list[str]) -> None:
    """Also by its defaults; how much of the image remains, 45 to 55 %, stands in the authors' code."""
    built = MODELS.build(augment)
    assert isinstance(built, BatchCopyBlend) and (built.prob, built.stages) == (prob, tuple(stages))
    assert (built.num_objects, built.min_area, built.surroundings) == (3, 100, (0.1, 0.25))
    assert built.ratio_range == (0.45, 0.55)


def test_the_recipe_of_every_config_on_a_vit_is_known() -> None:
    assert set(ON_VIT) == {name for name in config_names() if name.startswith(('deimv2/deimv2_vit', 'ecdet/'))}


@pytest.mark.parametrize('name', ON_VIT)
def test_the_recipe_and_the_parameters_on_a_vit(name: str) -> None:
    """Theirs have two parameters more, the constants of the bins, and on DINOv3's ViT a token that is not trained."""
    cfg, recipe, deimv2 = shipped_config(name), ON_VIT[name], name.startswith('deimv2')
    assert cfg.train_cfg.max_epochs == recipe.epochs and cfg.auto_scale_lr.base_batch_size == 32
    assert cfg.train_dataloader.batch_size * 8 == 32
    optimizer = {'type': 'AdamW', 'lr': 5e-4, 'betas': (0.9, 0.999), 'weight_decay': recipe.decay}
    assert cfg.optim_wrapper.optimizer == optimizer and cfg.optim_wrapper.clip_grad.max_norm == 0.1
    (part,), (factor,) = zip(*cfg.optim_wrapper.paramwise_cfg.lr_mult.items())
    assert part == 'backbone.vit' and factor * 5e-4 == pytest.approx(recipe.vit_rate)
    check, average, timetable, *late = cfg.custom_hooks
    assert check.type == 'NumClassCheckHook' and (average.momentum, average.gamma) == (1e-4, 1000)
    stages = [('mosaic', 4 * deimv2), ('strong', recipe.mosaic_end), ('plain', recipe.plain)]
    assert timetable.timetable == [('plain', 0), *stages][not deimv2 :]
    assert [(hook.type, hook.begin) for hook in late] == ([('MatchingCostHook', recipe.late)] if recipe.late else [])
    assigner = cfg.model.bbox_head.criterion.assigner
    assert assigner.get('quality_cost') == ({'iou_power': 4} if recipe.late else None)
    (curve,) = cfg.param_scheduler
    assert (curve.type, curve.warmup_iters, curve.gamma) == ('FlatCosineLR', 2000, 0.5)
    assert (curve.flat_end, curve.decay_end) == (recipe.mosaic_end, recipe.plain)
    (choice,) = cfg.train_dataloader.dataset.pipeline[0].transforms
    assert choice.prob == [recipe.mosaic, 1 - recipe.mosaic]

    preprocessor = cfg.model.data_preprocessor
    assert (preprocessor.mean, preprocessor.std) == ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375])
    mixing, *others = preprocessor.batch_augments
    assert (mixing.type, mixing.prob, mixing.stages) == ('BatchMixUp', recipe.mosaic, ['mosaic'])
    assert [augment.type for augment in others] == ['BatchCopyBlend', 'BatchMultiScale'] * deimv2
    if deimv2:
        blending, scaling = others
        check_copy_blend(blending, 0.5, ['mosaic', 'strong'])
        assert scaling.sizes.count(640) == recipe.repeats and scaling.stop_epoch == recipe.plain

    model = build_on_meta(cfg)
    token = 384 if cfg.model.backbone.arch.startswith('dinov3') else 0
    assert sum(p.numel() for p in model.parameters()) == recipe.parameters - 2 - token
