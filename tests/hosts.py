"""mmdet's detection transformers, small enough for tests, and the adapters that stand for them."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from mmengine.config import Config, ConfigDict
from torch import Tensor

import mmdet_iouquery  # noqa: F401  before mmdet
from mmdet_iouquery.compat import ops_state


class Host(NamedTuple):
    """One of mmdet's detectors."""

    adapter: str
    config: str
    """mmdet's config of it."""


HOSTS = {
    'DETR': Host('IoUQueryDETR', 'mmdet::detr/detr_r50_8xb2-150e_coco.py'),
    'ConditionalDETR': Host('IoUQueryConditionalDETR', 'mmdet::conditional_detr/conditional-detr_r50_8xb2-50e_coco.py'),
    'DABDETR': Host('IoUQueryDABDETR', 'mmdet::dab_detr/dab-detr_r50_8xb2-50e_coco.py'),
    'DeformableDETR': Host(
        'IoUQueryDeformableDETR', 'mmdet::deformable_detr/deformable-detr-refine-twostage_r50_16xb2-50e_coco.py'
    ),
    'DINO': Host('IoUQueryDINO', 'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py'),
    'DDQDETR': Host('IoUQueryDDQDETR', 'mmdet::ddq/ddq-detr-4scale_r50_8xb2-12e_coco.py'),
}
FOCAL = {'type': 'FocalLoss', 'use_sigmoid': True, 'gamma': 2.0, 'alpha': 0.25, 'loss_weight': 1.0}
LOSSES = {
    'focal': FOCAL,
    'varifocal': {'type': 'IoUVarifocalLoss', 'loss_weight': 1.0},
    'matchability': {'type': 'MatchabilityAwareLoss', 'loss_weight': 1.0},
}
COSTS = [
    {'type': 'FocalLossCost', 'weight': 2.0},
    {'type': 'BBoxL1Cost', 'weight': 5.0, 'box_format': 'xywh'},
    {'type': 'IoUCost', 'iou_mode': 'giou', 'weight': 2.0},
]


def host_config(
    name: str, *, sigmoid: bool = False, loss: str = 'focal', full_width: bool = False, **model: Any
) -> ConfigDict:
    """The model of mmdet's config, with a narrow backbone, an encoder and two decoder layers, 20 queries, no dropout.

    Args:
        sigmoid: give the head a sigmoid loss, ``loss`` of :data:`LOSSES`, and matching costs that go with it.
        full_width: leave the backbone as wide as it is.
        model: more keys of the model.
    """
    path = HOSTS[name].config.replace('mmdet::', '')
    cfg = Config.fromfile(_mmdet_config(path)).model
    cfg.backbone.init_cfg = None  # weights to fetch
    if not full_width:
        narrow(cfg)
    cfg.encoder.num_layers, cfg.num_queries = 1, 20
    cfg.test_cfg.max_per_img = 20
    if 'type' not in cfg.decoder:
        cfg.decoder.num_layers = 2
    _without_dropout(cfg)
    if sigmoid:
        cfg.bbox_head.loss_cls = ConfigDict(LOSSES[loss])
        cfg.train_cfg.assigner.match_costs = [ConfigDict(cost) for cost in COSTS]
    cfg.update(model)
    return cfg


def narrow(model: ConfigDict) -> None:
    """A ResNet with an eighth of its channels, a ViT of three narrow blocks, and so what the neck is given."""
    if 'ResNet' in model.backbone.type:
        model.backbone.base_channels = 8
        model.neck.in_channels = [channels // 8 for channels in model.neck.in_channels]
    if 'ViT' in model.backbone.type:
        model.backbone.size_cfg = {'embed_dims': 32, 'num_heads': 2, 'feedforward_channels': 64, 'depth': 3}
        model.backbone.out_indices = (0, 1, 2)
        model.neck.in_channels = [32] * 3
    teacher = model.get('data_preprocessor', {}).get('teacher')
    if teacher is not None:
        narrow(teacher.model)


def _mmdet_config(path: str) -> str:
    from mmengine.utils import get_installed_path

    return f'{get_installed_path("mmdet")}/.mim/configs/{path}'


def _without_dropout(cfg: Any) -> None:
    if isinstance(cfg, dict):
        for key, value in cfg.items():
            if key in ('dropout', 'attn_drop', 'proj_drop', 'ffn_drop'):
                cfg[key] = 0.0
            _without_dropout(value)


def greedy_nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int = 0) -> Tensor:
    """Indices of the boxes that greedy NMS keeps, best first: what mmcv's operator computes."""
    from mmdet_iouquery.core import box_iou_elementwise

    order, kept = scores.argsort(descending=True), []
    while len(order):
        kept.append(order[0])
        order = order[1:][box_iou_elementwise(boxes[order[0]], boxes[order[1:]]) <= iou_threshold]
    return torch.stack(kept) if kept else order


@contextmanager
def nms_in_torch() -> Iterator[None]:
    """mmcv's NMS operator in plain torch where it is not compiled, so that DDQ-DETR runs."""
    if ops_state() == 'compiled':
        yield
        return
    nms = importlib.import_module('mmcv.ops.nms')
    with patch.object(nms.ext_module, 'nms', greedy_nms, create=True):
        yield


def flat(losses: dict[str, Any]) -> dict[str, Tensor]:
    """Losses by name; mmdet gives some as lists."""
    return {
        name if len(parts) == 1 else f'{name}[{i}]': part
        for name, parts in ((n, v if isinstance(v, list) else [v]) for n, v in losses.items())
        for i, part in enumerate(parts)
    }


_PROJECTIONS = {'qcontent': 'q_content', 'qpos': 'q_pos', 'kcontent': 'k_content', 'kpos': 'k_pos', 'v': 'value'}
_MMDETS_DAB = {
    **{
        f'{attention}.{theirs}_proj.': f'{attention}.{ours}.'
        for attention in ('self_attn', 'cross_attn')
        for theirs, ours in _PROJECTIONS.items()
    },
    'cross_attn.qpos_sine_proj.': 'cross_attn.q_sine.',
    'ffn.layers.0.0.': 'linear1.',
    'ffn.layers.0.1.': 'act.',
    'ffn.layers.1.': 'linear2.',
    'norms.0.': 'norm1.',
    'norms.1.': 'norm2.',
    'norms.2.': 'norm3.',
    'post_norm.': 'norm.',
    'ref_point_head.': 'query_pos_head.',
    'ref_anchor_head.': 'ref_hw_head.',
    'fc_cls.': 'cls_heads.0.',
    'fc_reg.': 'bbox_heads.0.',
}


def mmdets_to_ours(key: str) -> str:
    """Our name of a weight of mmdet's DAB-DETR decoder or head, without the part's own prefix."""
    for theirs, ours in _MMDETS_DAB.items():
        key = key.replace(theirs, ours)
    return key
