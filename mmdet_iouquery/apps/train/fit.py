"""A config fitted to a set of images, a number of epochs, a size and a batch, as a person would edit it.

Nothing is tuned: what a recipe counts in epochs or steps keeps its share of the run, sizes keep their ratios, and the
rate goes with the batch by the linear rule that the config's ``auto_scale_lr`` names.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from mmengine.config import Config, ConfigDict

from ...config_options import as_list, type_name
from ...datasets.coco.checks import class_counts, is_coco_metric
from ...errors import InputError
from ..data.coco_set import CocoSet
from .arguments import STRIDE, check_size

WARM_UP = 10
"""A warm-up takes at most one in so many steps of a run."""
_EPOCHS = ('switch_epoch', 'stop_epoch')
_BEGINS = {'MatchingCostHook': 'begin', 'GradientShareHook': 'default_from'}
"""Of hooks that count epochs or steps, as they are told."""
_ENDS = ('begin', 'end', 'T_max', 'flat_end', 'decay_end')
"""Of a parameter scheduler."""

_PX = {'scale', 'scales', 'img_scale', 'crop_size', 'size', 'border', 'short_side'}
"""Of transforms and a data preprocessor: px of resized images; shares of them where they are not whole numbers."""
_PX_OF_BATCHES = {'sizes', 'random_size_range'}
"""The same, to be multiples of the coarsest stride."""


class Wishes(NamedTuple):
    """What a config is fitted to; None: as it is."""

    data: CocoSet | None = None
    images: int | None = None
    """Of training, where ``data`` is given."""
    epochs: int | None = None
    size: int | None = None
    """Side of the square that images are resized to, in px; where they keep their ratio, their longer side at most."""
    batch: int | None = None
    """Images a device and step."""
    devices: int = 1


def fitted(cfg: Config, wishes: Wishes, options: Mapping[str, Any] | None = None) -> Config:
    """A copy of ``cfg`` that trains as wished.

    Args:
        cfg: that already has the overrides.
        wishes: what it is fitted to.
        options: the overrides by their dotted keys, which hold as they are given.

    Raises:
        InputError: the config has not what a wish is about, such as one size; a wish is out of range.
    """
    cfg = copy.deepcopy(cfg)
    if wishes.data is not None:
        _fit_data(cfg, wishes.data)
    if wishes.size is not None:
        _fit_size(cfg, wishes.size)
    if wishes.batch is not None:
        cfg.train_dataloader.batch_size = wishes.batch
        if 'base_batch_size' in (cfg.get('auto_scale_lr') or {}):
            cfg.auto_scale_lr.enable = True
    steps = None if wishes.images is None else _steps_an_epoch(cfg, wishes)
    if wishes.epochs is not None:
        _fit_length(cfg, wishes.epochs, steps)
    if steps is not None:
        _shorten_warm_up(cfg, steps)
    cfg.merge_from_dict(dict(options or {}))
    _leave_out_short_phases(cfg)
    return cfg


def learning_rate(cfg: Config, devices: int = 1) -> float | None:
    """The base rate of a run, after the linear rule where it is on; None: the config names none."""
    rate = ((cfg.get('optim_wrapper') or {}).get('optimizer') or {}).get('lr')
    rule = cfg.get('auto_scale_lr') or {}
    if rate is None or not rule.get('enable'):
        return rate
    return float(rate * devices * cfg.train_dataloader.batch_size / rule['base_batch_size'])


def _fit_data(cfg: Config, data: CocoSet) -> None:
    for split, ann_file, images in (
        ('train', data.train_ann, data.train_images),
        ('val', data.val_ann, data.val_images),
        ('test', data.val_ann, data.val_images),
    ):
        if cfg.get(f'{split}_dataloader') is None:
            continue
        _leaf(cfg, split).update(
            type='CocoDataset',
            data_root='',
            ann_file=str(ann_file),
            data_prefix=dict(img=str(images)),
            metainfo=dict(classes=tuple(data.classes)),
        )
        for evaluator in as_list(cfg.get(f'{split}_evaluator')):
            if is_coco_metric(evaluator):
                evaluator.ann_file = str(ann_file)
    for _, entry in class_counts(cfg.model):
        entry['num_classes'] = len(data.classes)


def _leaf(cfg: Config, split: str) -> ConfigDict:
    """The data set below whatever wraps it."""
    loader = cfg.get(f'{split}_dataloader')
    node = None if loader is None else loader.get('dataset')
    while isinstance(node, Mapping) and isinstance(node.get('dataset'), Mapping):
        node = node['dataset']
    if not isinstance(node, ConfigDict) or 'datasets' in node:
        raise InputError(
            f'{split}_dataloader of {cfg.filename} has no single data set to put yours in place of; write yours into '
            'the config'
        )
    return node


def _fit_size(cfg: Config, size: int) -> None:
    """Multiply whatever counts px of resized images by one ratio."""
    check_size(size)
    ratio = size / _longer_side(cfg)
    loaders = [cfg.get(f'{split}_dataloader') for split in ('train', 'val', 'test')]
    for node in nodes([*loaders, cfg.model.get('data_preprocessor'), cfg.get('custom_hooks')]):
        for name in _PX & set(node):
            node[name] = _scaled(node[name], ratio)
        for name in _PX_OF_BATCHES & set(node):
            node[name] = type(node[name])(max(STRIDE, round(side * ratio / STRIDE) * STRIDE) for side in node[name])
        if 'min_gt_bbox_wh' in node:
            # a limit of 1 px leaves out what is no box, on images of any size
            node['min_gt_bbox_wh'] = tuple(max(1, round(px * ratio)) if px > 1 else px for px in node['min_gt_bbox_wh'])


def _longer_side(cfg: Config) -> int:
    """The longer side, in px, that images are resized to for testing."""
    scales = [node['scale'] for node in nodes(_leaf(cfg, 'test').get('pipeline')) if 'scale' in node]
    side = max(scales[0]) if len(scales) == 1 and isinstance(scales[0], (list, tuple)) else None
    if not isinstance(side, int):
        raise InputError(
            f'--size is for configs whose test pipeline resizes images to one scale, and {cfg.filename} has the scales '
            f'{scales}; write another scale into the resize steps of its pipelines'
        )
    return side


def _scaled(px: Any, ratio: float) -> Any:
    """Whole numbers, also in lists of lists, times a ratio; others are shares."""
    if isinstance(px, (list, tuple)):
        return type(px)(_scaled(item, ratio) for item in px)
    return round(px * ratio) if isinstance(px, int) and not isinstance(px, bool) else px


def _steps_an_epoch(cfg: Config, wishes: Wishes) -> int:
    return max(1, (wishes.images or 0) // (cfg.train_dataloader.batch_size * wishes.devices))


def _fit_length(cfg: Config, epochs: int, steps: int | None) -> None:
    """Scale all that counts in the run's own unit, epochs or steps.

    Args:
        steps: of an epoch, for runs that count steps; None: not known.
    """
    if epochs < 1:
        raise InputError(f'--epochs {epochs}: name at least 1')
    loop = cfg.train_cfg
    by_epoch = 'max_epochs' in loop
    if not by_epoch and steps is None:
        raise InputError(f'{cfg.filename} counts steps: name the data with --data, or set train_cfg.max_iters')
    unit, length = ('max_epochs', epochs) if by_epoch else ('max_iters', epochs * (steps or 1))
    before, loop[unit] = loop[unit], length
    ratio = length / before
    intervals = [(loop, 'val_interval')]
    checkpoint = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    intervals += [(checkpoint, 'interval')] if checkpoint.get('by_epoch', True) == by_epoch else []
    for node, name in intervals:
        if name in node:
            node[name] = min(length, max(1, node[name] if by_epoch else round(node[name] * ratio)))
    for scheduler in as_list(cfg.get('param_scheduler')):
        if scheduler.get('by_epoch', True) == by_epoch:
            _scale_ends(scheduler, before, length)
    for node in nodes([cfg.model, cfg.get('custom_hooks')]):
        if node.get('by_epoch', True) != by_epoch:
            continue
        if type_name(node) == 'AugmentationTimetableHook':
            node['timetable'] = _stretched(node['timetable'], before, length)
        if type_name(node) == 'GradientShareHook' and 'interval' in node:
            node['interval'] = max(1, round(node['interval'] * ratio))
        begin = _BEGINS.get(type_name(node))
        for name in [begin] if begin else _EPOCHS if by_epoch else ():
            if node.get(name) is not None:
                node[name] = _moved(node[name], before, length, least=int(not begin))


def _scale_ends(scheduler: ConfigDict, before: int, length: int) -> None:
    ratio = length / before
    for name in _ENDS:
        if isinstance(scheduler.get(name), int) and scheduler[name] > 0:
            scheduler[name] = max(1, min(length, round(scheduler[name] * ratio)))
    if 'begin' in scheduler and 'end' in scheduler:
        scheduler['end'] = max(scheduler['begin'] + 1, scheduler['end'])  # of a run of a step or two
    if 'milestones' in scheduler:
        scheduler['milestones'] = [_moved(time, before, length, least=1) for time in scheduler['milestones']]


def _moved(time: int, before: int, length: int, least: int = 0) -> int:
    """A time of a run of ``before`` epochs (or steps) in one of ``length``: beyond its end, where it was so before."""
    share = round(time * length / before)
    return max(least, min(length - 1, share)) if time < before else share


def _stretched(timetable: Sequence[Sequence[Any]], before: int, length: int) -> list[tuple[str, int]]:
    """Each stage at its share of the run, and at least one epoch or step long."""
    if length < len(timetable):
        raise InputError(
            f'--epochs: the augmentation of this config has {len(timetable)} stages; train for at least '
            f'{len(timetable)} epochs'
        )
    begins: list[int] = []
    for i, (_, begin) in enumerate(timetable):
        earliest = begins[-1] + 1 if begins else 0
        share = max(earliest, _moved(begin, before, length))
        begins.append(share if begin >= before else min(share, length - (len(timetable) - i)))
    return [(name, begin) for (name, _), begin in zip(timetable, begins)]


def _shorten_warm_up(cfg: Config, steps: int) -> None:
    """Where it takes more than a tenth of the run.

    Args:
        steps: of an epoch.
    """
    loop = cfg.train_cfg
    most = max(1, (loop.max_epochs * steps if 'max_epochs' in loop else loop.max_iters) // WARM_UP)
    for scheduler in as_list(cfg.get('param_scheduler')):
        if scheduler.get('warmup_iters', 0) > most:
            scheduler['warmup_iters'] = most
        is_warm_up = type_name(scheduler) == 'LinearLR' and scheduler.get('begin', 0) == 0
        if is_warm_up and not scheduler.get('by_epoch', True) and scheduler.get('end', 0) > most:
            scheduler['end'] = most


def _leave_out_short_phases(cfg: Config) -> None:
    """Of fewer than two steps, after which mmengine's LinearLR would not leave its first factor."""
    schedulers = as_list(cfg.get('param_scheduler'))
    kept = [scheduler for scheduler in schedulers if not _is_short(scheduler)]
    if len(kept) < len(schedulers):
        cfg.param_scheduler = kept


def _is_short(scheduler: ConfigDict) -> bool:
    in_steps = type_name(scheduler) == 'LinearLR' and not scheduler.get('by_epoch', True)
    return in_steps and 'end' in scheduler and scheduler['end'] - scheduler.get('begin', 0) < 2


def nodes(node: Any) -> Iterator[Any]:
    """Every mapping in nested containers."""
    if isinstance(node, Mapping):
        yield node
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for child in node:
            yield from nodes(child)
