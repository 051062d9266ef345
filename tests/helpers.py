"""Builders that several test files share."""

from __future__ import annotations

import copy
import functools
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import golden_formula as formula
import numpy as np
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample, SampleList
from mmengine.config import Config
from mmengine.structures import InstanceData
from tolerances import within
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmdet_iouquery import config_path
from mmdet_iouquery.structures import Decoded, DenoisingQueries, Memory, Predictions, Queries, Selection

DATA = Path(__file__).parent / 'data'
NARROW: dict[str, Any] = {
    'backbone__base_channels': 8,
    'neck__in_channels': [16, 32, 64],
    'neck__out_channels': 32,
    'neck__num_heads': 2,
    'neck__feedforward_channels': 32,
    'bbox_head__in_channels': [32] * 3,
    'bbox_head__embed_dims': 32,
    'bbox_head__decoder__num_heads': 2,
    'bbox_head__decoder__feedforward_channels': 32,
}
"""Overrides that leave :func:`small_detector` every layer and 0.3 of its 20 million parameters."""
D_FINE_NECK = {'neck__fusion': 'elan', 'neck__downsample': 'separable', 'neck__lateral_act': False}
"""Overrides that make the hybrid encoder D-FINE's."""
UNION_AND_EDGES = {
    'bbox_head__criterion__union_matching': True,
    'bbox_head__criterion__loss_fgl': {'type': 'FineGrainedLocalizationLoss', 'loss_weight': 0.15},
    'bbox_head__criterion__loss_ddf': {'type': 'DistributionDistillationLoss', 'loss_weight': 1.5},
}
"""Overrides that make the criterion D-FINE's, which a decoder of distributions asks for."""
NARROW_N: dict[str, Any] = {
    'neck__out_channels': 32,
    'neck__num_heads': 2,
    'neck__feedforward_channels': 32,
    'bbox_head__in_channels': [32] * 2,
    'bbox_head__embed_dims': 32,
    'bbox_head__decoder__num_heads': 2,
    'bbox_head__decoder__feedforward_channels': 32,
}
"""The same of D-FINE-N and DEIM-N: the backbone, of 1.9 million parameters, stays."""
NARROW_VIT: dict[str, Any] = {
    **NARROW_N,
    'backbone__size_cfg': {'embed_dims': 32, 'num_heads': 2, 'feedforward_channels': 48, 'depth': 3},
    'backbone__out_channels': 32,
    'neck__in_channels': [32] * 3,
    'neck__num_fusion_blocks': 1,
    'bbox_head__in_channels': [32] * 3,
    'bbox_head__decoder__num_layers': 2,
    'bbox_head__decoder__query_pos__hidden_dims': 32,
}
"""The same of the sizes with a ViT, which gets three blocks; ``out_indices`` are to be among them."""
TINY_TEACHER: dict[str, Any] = {
    'type': 'TeacherFeatures',
    'model': {
        'backbone': {'type': 'ResNetVd', 'depth': 18, 'base_channels': 8, 'out_indices': (3,), 'norm_eval': False},
        'data_preprocessor': {'mean': [123.675, 116.28, 103.53], 'std': [58.395, 57.12, 57.375]},
    },
}
"""Of random weights: its map has 64 channels and stride 32."""
DISTILLED: dict[str, Any] = {
    'data_preprocessor__type': 'DistillingDataPreprocessor',
    'data_preprocessor__teacher': TINY_TEACHER,
    'data_preprocessor__teacher_channels': 64,
    'data_preprocessor__student': 'neck.encoder.0',
    'data_preprocessor__student_channels': 32,
}
"""Overrides that have a detector of :data:`NARROW` learn from it."""
RTDETRV2: dict[str, dict[str, Any]] = {
    'points per level': {
        'bbox_head__decoder__num_points': [3, 5, 2],
        'bbox_head__decoder__query_pos': {'num_layers': 3, 'act_cfg': {'type': 'SiLU'}, 'clamp': 10.0},
        'bbox_head__query_selector__rank': 'token_class',
    },
    'discrete sampling': {
        'bbox_head__decoder__sampling': 'discrete',
        'bbox_head__query_selector__class_agnostic': True,
    },
}
"""Overrides that give :func:`small_detector` what RT-DETRv2 and its successors have, two compositions of it."""
RTDETR = 'rtdetr/rtdetr_r18vd_8xb2-72e_coco.py'
FAMILY: dict[str, dict[str, Any]] = {
    'RT-DETR': NARROW,
    **{f'RT-DETRv2, {name}': {**NARROW, **changes} for name, changes in RTDETRV2.items()},
    'D-FINE': {'config': 'dfine/dfine_hgnetv2-n_8xb16-160e_coco.py', **NARROW_N},
    'DEIM-D-FINE': {'config': 'deim/deim-dfine_hgnetv2-n_8xb16-160e_coco.py', **NARROW_N},
    'DEIM-RT-DETRv2': {'config': 'deim/deim-rtdetrv2_r18vd_8xb2-120e_coco.py', **NARROW},
    'DEIMv2-Atto': {'config': 'deimv2/deimv2_hgnetv2-atto_8xb16-500e_coco.py'},
    'DEIMv2-N': {'config': 'deimv2/deimv2_hgnetv2-n_8xb4-160e_coco.py', **NARROW_N},
    'DEIMv2-X': {
        'config': 'deimv2/deimv2_vit-x_8xb4-58e_coco.py',
        **NARROW_VIT,
        'backbone__out_indices': (0, 1, 2),
        'backbone__prior_channels': 4,
    },
    'ECDet-S': {
        'config': 'ecdet/ecdet_ecvit-s_8xb4-74e_coco.py',
        **NARROW_VIT,
        'backbone__out_indices': (1, 2),
    },
}
"""Arguments of :func:`small_detector` for a narrow detector of each kind."""


@functools.cache
def _parsed(path: str) -> Config:
    return Config.fromfile(path)


def shipped_config(name: str) -> Config:
    """A shipped config without pretrained weights, which tests can't fetch; each file is read once."""
    cfg = copy.deepcopy(_parsed(config_path(name)))
    cfg.model.init_cfg = cfg.model.backbone.init_cfg = None
    teacher = cfg.model.get('data_preprocessor', {}).get('teacher')
    if teacher is not None:
        teacher.model = shipped_config(teacher.model).model if isinstance(teacher.model, str) else teacher.model
        teacher.checkpoint = teacher.model.backbone.init_cfg = None
    return cfg


def model_config(name: str, **overrides: object) -> Any:
    """``model`` of a shipped config; ``overrides`` are dotted keys of it, dots written as two underscores."""
    cfg = shipped_config(name)
    cfg.merge_from_dict({f'model.{key.replace("__", ".")}': value for key, value in overrides.items()})
    return cfg.model


def build_detector(name: str, **overrides: object) -> nn.Module:
    """What :func:`model_config` describes."""
    return MODELS.build(model_config(name, **overrides))


def small_config(config: str = RTDETR, **overrides: object) -> Any:
    """``model`` of a detector, by default an RT-DETR-R18, with 5 classes, 30 queries and few denoising ones: quick to
    run."""
    settings = {
        'bbox_head__num_classes': 5,
        'bbox_head__query_selector__num_queries': 30,
        'bbox_head__denoising__num_denoising': 6,
        'data_preprocessor__batch_augments': None,
    }
    return model_config(config, **{**settings, **overrides})


def small_detector(config: str = RTDETR, **overrides: object) -> nn.Module:
    """What :func:`small_config` describes."""
    return MODELS.build(small_config(config, **overrides))


def with_fixed_norms(model: nn.Module) -> nn.Module:
    """Batch norms go by their running statistics, in training too: an image means the same alone and in a batch."""
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.eval()
    return model


def learning(backbone: nn.Module) -> set[str]:
    """Modules, or those of a list, with parameters that are trained or norms that take statistics."""
    names = {name for name, parameter in backbone.named_parameters() if parameter.requires_grad}
    names |= {name for name, module in backbone.named_modules() if isinstance(module, _BatchNorm) and module.training}
    return {re.sub(r'^((?:stages|blocks)\.\d+|\w+).*', r'\1', name) for name in names}


def take_family(cfg: Config, name: str, **overrides: object) -> None:
    """Make the model of a config for the digits a narrow one of :data:`FAMILY`."""
    few = {'bbox_head__num_classes': 10, 'test_cfg': cfg.model.test_cfg}
    cfg.model = small_config(**{**FAMILY[name], **few, **overrides})


def loss_names(head: Any) -> set[str]:
    """Of a head with denoising queries."""
    criterion, selector, terms = head.criterion, head.query_selector, ('loss_cls', 'loss_bbox', 'loss_iou')
    layers = [*(f'd{i}.' for i in range(len(head.decoder.layers) - 1)), '']
    names = {prefix + term for prefix in layers for term in terms}
    if head.decoder.refines_distributions:
        names |= {f'pre.{term}' for term in terms}
    if criterion.loss_fgl is not None:
        names |= {f'{prefix}loss_fgl' for prefix in layers}
    if criterion.loss_ddf is not None:
        names |= {f'{prefix}loss_ddf' for prefix in layers[:-1]}
    names |= {name.replace('loss', 'dn_loss') for name in names}
    if hasattr(selector, 'cls_head'):
        names |= {f'enc_{term}' for term in terms}
    return names | ({'enc_loss_quality'} if hasattr(selector, 'iou_head') else set())


def sample(
    boxes_px: list[list[float]] | Tensor,
    labels: list[int] | Tensor,
    input_shape: tuple[int, int],
    img_shape: tuple[int, int] | None = None,
) -> DetDataSample:
    """A data sample as mmdet's preprocessor leaves it: corner boxes in pixels of the network's input."""
    img_shape = img_shape or input_shape
    data_sample = DetDataSample(
        metainfo={
            'img_shape': img_shape,
            'ori_shape': img_shape,
            'batch_input_shape': input_shape,
            'pad_shape': input_shape,
            'scale_factor': (1.0, 1.0),
            'img_path': 'images/one.jpg',
        }
    )
    data_sample.gt_instances = InstanceData(
        bboxes=torch.as_tensor(boxes_px, dtype=torch.float32).reshape(-1, 4),
        labels=torch.as_tensor(labels, dtype=torch.long),
    )
    return data_sample


def random_batch(counts: list[int], height: int, width: int, num_classes: int = 5) -> tuple[Tensor, SampleList]:
    """Images (B, 3, H, W) in [0, 1] and samples with ``counts`` boxes."""
    samples = []
    for count in counts:
        low = torch.rand(count, 2) * 0.6
        corners = torch.cat([low, low + 0.1 + 0.3 * torch.rand(count, 2)], 1) * torch.tensor([width, height] * 2)
        samples.append(sample(corners, torch.randint(num_classes, (count,)), (height, width)))
    return torch.rand(len(counts), 3, height, width), samples


def decoded(
    predictions: Predictions, selection: Selection | None = None, denoising: DenoisingQueries | None = None
) -> Decoded:
    """What a criterion is given; without a selection the encoder has predicted nothing."""
    images, queries = predictions.logits.shape[1:3]
    if selection is None:
        selection = Selection(Queries(torch.zeros(images, queries, 1), torch.zeros(images, queries, 4)))
    return Decoded(Memory(torch.zeros(images, 0, 1), ()), selection, denoising, predictions)


class RunsCode:
    """Makes the folder that ``MARKER_FOLDER`` of the environment names when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (os.environ['MARKER_FOLDER'],)


def assert_same_weights(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    assert all(torch.equal(a[key], b[key]) for key in a)


def transfers(monkeypatch: Any) -> list[torch.Size]:
    """The shapes of what is brought to the host from now on."""
    shapes: list[torch.Size] = []

    def cpu(x: Tensor, *args: Any, original: Any = Tensor.cpu) -> Tensor:
        shapes.append(x.shape)
        return original(x, *args)

    monkeypatch.setattr(Tensor, 'cpu', cpu)
    return shapes


def difference_as_sets(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor], num_ties: int = 0) -> float:
    """Largest difference between two models' logits (B, Q, C) and boxes (B, Q, 4): equal scores may swap queries.

    ``num_ties``: how many queries of an image may be others altogether.
    """
    rows_a, rows_b = torch.cat(a, dim=-1), torch.cat(b, dim=-1)
    distance = torch.cdist(rows_a, rows_b, p=float('inf'))
    smallest, partner = distance.min(dim=2)
    common = smallest.argsort(dim=1)[:, : smallest.shape[1] - num_ties]
    smallest, partner = smallest.gather(1, common), partner.gather(1, common)
    assert all(len(set(index)) == len(index) for index in partner.tolist()), 'two queries have the same partner'
    return smallest.max().item()


def golden(name: str) -> np.lib.npyio.NpzFile:
    """The authors' outputs ``name``; see ``tests/data/README.md``."""
    return np.load(DATA / f'{name}.npz')


def assert_golden_maps(maps: Sequence[Tensor], reference: Mapping[str, Any], name: str) -> None:
    """Maps (B, C, h, w) have the means, deviations and excerpts that stand under ``name``; some files lack one or all.

    An excerpt is every (C // 8)-th channel, first, middle and last row and column.
    """
    theirs = [key for key in reference if key.startswith(f'{name}_') and key.endswith(('mean_std', 'slice'))]
    assert {key.split('_')[1] for key in theirs} in (set(), {*map(str, range(len(maps)))})
    for key in theirs:
        x = maps[int(key.split('_')[1])].detach().float()
        height, width = x.shape[-2:]
        ours = torch.stack([x.mean(), x.std()])
        if key.endswith('slice'):
            ours = x[:, :: x.shape[1] // 8][:, :8, [0, height // 2, height - 1]][..., [0, width // 2, width - 1]]
        torch.testing.assert_close(ours, torch.from_numpy(reference[key]), **within('reference map'))


def golden_weights(name: str) -> dict[str, Tensor]:
    """The authors' state dict that the outputs belong to, rebuilt from its keys."""
    keys = json.loads((DATA / f'{name}.keys.json').read_text())
    fill = formula.tensor if name.startswith('dfine') else formula.weight  # the same but for learnable scales
    # where DEIMv2's layers share a box head, all its keys hold what the first one's name gives
    first = {key: re.sub(r'(dec_bbox_head)\.\d+', r'\1.0', key) if 'atto' in name else key for key in keys}
    weights = {key: torch.from_numpy(np.asarray(fill(first[key], tuple(shape)))) for key, shape in keys.items()}
    for key in weights:
        for end, constant in (('.up', 0.5), ('.reg_scale', 4.0)):
            if key.endswith(end):
                weights[key] = torch.tensor([constant])
        if key.endswith('.periods'):
            weights[key] = 100.0 ** (torch.arange(16) / 16)
        if key.endswith('.bias_mask'):
            weights[key] = torch.tensor([1.0, 0.0, 1.0]).repeat_interleave(len(weights[key]) // 3)
    return weights
