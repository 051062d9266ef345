"""The sets that a config names, checked against each other and against the model before training starts.

A single set is looked at by :func:`check_coco`. What this module adds is what only the config shows: the class list of
every set, ``num_classes`` of the model, the evaluators' files.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import InputError
from .coco_json import read_coco
from .coco_report import CheckedSet, CocoReport, check_class_list, check_coco, check_label_order, read_checked

__all__ = ['CocoReport', 'check_class_list', 'check_coco', 'check_config', 'checked_sets']

_PARTS = ('train', 'val', 'test')
# Below these keys num_classes counts something else: ImageNet's classes, foreground or not, stuff.
_OTHER_CLASSES = frozenset({'backbone', 'rpn_head', 'semantic_head', 'data_preprocessor'})


@dataclass(frozen=True)
class ConfigSet:
    """One CocoDataset of a config with its paths joined; ``image_dir`` is None where it is remote."""

    where: str
    part: str
    pipeline: tuple[Mapping[str, Any], ...]
    ann_file: str
    image_dir: str | None
    classes: tuple[str, ...]
    classes_from: str
    filter_empty: bool
    min_size: int
    need_boxes: bool


def check_config(cfg: Mapping[str, Any]) -> list[CocoReport]:
    """Check every CocoDataset of a config, its class lists, ``num_classes`` and the evaluators' files.

    Wrappers (RepeatDataset, ClassBalancedDataset, ConcatDataset, ...) are looked into. Sets of another type and remote
    files are left alone. A set that is named twice (validation and test, usually) is read and reported once.

    Args:
        cfg: An mmengine ``Config`` or a dict of the same form.

    Returns:
        One report for each distinct set, in the order train, val, test.

    Raises:
        InputError: What :func:`check_coco` raises, with the config's path in front; or class lists that differ between
            sets, ``num_classes`` that is not their length, an evaluator whose file is missing, or one that the model
            does not give what it needs.
    """
    return [checked.report for _, checked in checked_sets(cfg)]


def checked_sets(cfg: Mapping[str, Any]) -> list[tuple[ConfigSet, CheckedSet]]:
    """As :func:`check_config`, with what was read of each distinct set."""
    sets = [one for part in _PARTS for one in _coco_sets(cfg, part)]
    _check_same_classes(sets)
    if sets:
        _check_num_classes(cfg.get('model') or {}, sets[0])
    evaluator_files = {part: _evaluator_files(cfg, part) for part in _PARTS[1:]}
    _check_keeps_selected(cfg)
    found: dict[tuple[Any, ...], tuple[ConfigSet, CheckedSet]] = {}
    for one in sets:
        key = (one.ann_file, one.image_dir, one.filter_empty, one.min_size, one.need_boxes)
        if key not in found:
            found[key] = one, _checked(one, evaluator_files.get(one.part, []))
    return list(found.values())


def _coco_sets(cfg: Mapping[str, Any], part: str) -> Iterator[ConfigSet]:
    loader = cfg.get(f'{part}_dataloader') or {}
    evaluators = _as_list(cfg.get(f'{part}_evaluator'))
    submits = bool(evaluators) and all(evaluator.get('format_only', False) for evaluator in evaluators)
    for where, node in _datasets(loader.get('dataset'), f'{part}_dataloader.dataset'):
        root = str(node.get('data_root') or '')
        ann_file = _joined(root, node.get('ann_file'))
        if not ann_file or _is_remote(ann_file):
            continue
        prefix = node.get('data_prefix') or {}
        if 'img' not in prefix:
            raise InputError(f"{where}: CocoDataset needs data_prefix=dict(img='folder of the images'), got {prefix!r}")
        image_dir = _joined(root, prefix['img'])
        classes, source = _classes_of(node, where)
        filters = {} if node.get('test_mode', False) else node.get('filter_cfg') or {}
        yield ConfigSet(
            where=where,
            part=part,
            pipeline=tuple(_as_list(node.get('pipeline'))),
            ann_file=ann_file,
            image_dir=None if _is_remote(image_dir) else image_dir or '.',
            classes=classes,
            classes_from=source,
            filter_empty=bool(filters.get('filter_empty_gt', False)),
            min_size=int(filters.get('min_size', 0)),
            need_boxes=not submits,
        )


def _datasets(node: Any, where: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The CocoDatasets below a ``dataset`` entry, each with its place in the config."""
    if not isinstance(node, Mapping):
        return
    if isinstance(node.get('datasets'), (list, tuple)):
        for index, child in enumerate(node['datasets']):
            yield from _datasets(child, f'{where}.datasets[{index}]')
    elif node.get('dataset') is not None:
        yield from _datasets(node['dataset'], f'{where}.dataset')
    elif type_name(node) == 'CocoDataset':
        yield where, node


def type_name(node: Mapping[str, Any]) -> str:
    """Name of the class that a config entry asks for, without scope. New-style configs give the class itself."""
    kind = node.get('type', '')
    return str(getattr(kind, '__name__', kind)).rsplit('.', 1)[-1]


def is_coco_metric(node: Mapping[str, Any]) -> bool:
    """Whether a config entry asks for mmdet's metric of COCO's AP, or ours that stands for it."""
    return type_name(node) in ('CocoMetric', 'FastCocoMetric')


def _as_list(value: Any) -> list[Mapping[str, Any]]:
    items = value if isinstance(value, (list, tuple)) else [value]
    return [item for item in items if isinstance(item, Mapping)]


def _joined(root: str, path: Any) -> str:
    """A path under ``data_root`` as BaseDataset joins it; empty for what is not a path."""
    if not isinstance(path, str):
        return ''
    return path if _is_remote(path) else os.path.join(root, path)


def _is_remote(path: str) -> bool:
    return '://' in path or path.startswith('s3:')


def _classes_of(node: Mapping[str, Any], where: str) -> tuple[tuple[str, ...], str]:
    """The class list of a dataset entry and where it stands."""
    metainfo = node.get('metainfo') or {}
    place = f'{where}.metainfo.classes'
    if 'CLASSES' in metainfo and 'classes' not in metainfo:
        raise InputError(f"{where}.metainfo: mmdet 3.x doesn't read CLASSES; write classes=(...), in small letters")
    classes = metainfo.get('classes')
    if classes is None:
        from mmdet.datasets import CocoDataset

        return tuple(CocoDataset.METAINFO['classes']), f"mmdet's own COCO list, as {place} is not set"
    if isinstance(classes, str) and os.path.isfile(classes):
        # mmengine reads a class list from a text file, one name a line.
        classes = Path(classes).read_text(encoding='utf-8').splitlines()
    try:
        return check_class_list(classes), place
    except InputError as error:
        raise InputError(f'{place}: {error}') from error


def _check_same_classes(sets: list[ConfigSet]) -> None:
    for other in sets[1:]:
        first = sets[0]
        if other.classes == first.classes:
            continue
        differing = sorted(set(first.classes) ^ set(other.classes))
        what = f'only one has {differing[:5]}' if differing else 'the order differs'
        raise InputError(
            f'the class lists differ ({what}): {len(first.classes)} classes of {first.where} ({first.classes_from}), '
            f'{len(other.classes)} of {other.where} ({other.classes_from}); give both the same metainfo'
        )


def _check_num_classes(model: Mapping[str, Any], first: ConfigSet) -> None:
    for place, value in _num_classes(model, 'model'):
        if value != len(first.classes):
            raise InputError(
                f'{place}={value}, but there are {len(first.classes)} classes ({first.classes_from}: '
                f'{", ".join(first.classes[:5])}{", ..." if len(first.classes) > 5 else ""}); '
                f'set {place}={len(first.classes)} (there is no background class) or correct the class list'
            )


def _num_classes(node: Any, where: str) -> Iterator[tuple[str, int]]:
    """Every ``num_classes`` below a part of the config that counts the classes to detect."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            if key == 'num_classes' and isinstance(value, int):
                yield f'{where}.num_classes', value
            elif key not in _OTHER_CLASSES:
                yield from _num_classes(value, f'{where}.{key}')
    elif isinstance(node, (list, tuple)):
        for index, value in enumerate(node):
            yield from _num_classes(value, f'{where}[{index}]')


def _evaluator_files(cfg: Mapping[str, Any], part: str) -> list[str]:
    """Local files of the part's CocoMetrics; InputError where one is missing."""
    files = []
    for evaluator in _as_list(cfg.get(f'{part}_evaluator')):
        path = evaluator.get('ann_file')
        if not is_coco_metric(evaluator) or not isinstance(path, str) or _is_remote(path):
            continue
        if not os.path.isfile(path):
            raise InputError(
                f'{part}_evaluator.ann_file: no file {path}; it is not joined with data_root, so write the whole '
                f"path of {part}_dataloader's ann_file"
            )
        files.append(path)
    return files


def _check_keeps_selected(cfg: Mapping[str, Any]) -> None:
    """QuerySelectionMetric needs a model that tells of its queries."""
    for part in _PARTS[1:]:
        named = any(
            type_name(evaluator) == 'QuerySelectionMetric' for evaluator in _as_list(cfg.get(f'{part}_evaluator'))
        )
        if named and not ((cfg.get('model') or {}).get('test_cfg') or {}).get('keep_selected'):
            raise InputError(
                f'{part}_evaluator has a QuerySelectionMetric, but model.test_cfg.keep_selected is not True, so the '
                'model would not tell of its queries; set it'
            )


def _checked(one: ConfigSet, evaluator_files: list[str]) -> CheckedSet:
    try:
        found = read_checked(
            one.ann_file,
            one.image_dir,
            one.classes,
            filter_empty=one.filter_empty,
            min_size=one.min_size,
            need_boxes=one.need_boxes,
            where=one.where,
        )
        others = [path for path in evaluator_files if os.path.realpath(path) != os.path.realpath(one.ann_file)]
        for path in others:  # CocoMetric turns labels into ids by the order of its own file
            check_label_order(read_coco(path, need_annotations=False), one.classes)
    except InputError as error:
        of_list = 'classes asked for' in str(error) or str(error).startswith('the class list')
        listed = f' (the class list is {one.classes_from})' if of_list else ''
        raise InputError(f'{one.where}: {error}{listed}') from error
    report = found.report
    if one.need_boxes and one.part != 'train':
        _check_evaluable(one, found)
    extra = tuple(f'the evaluator reads another file than the dataset: {path}' for path in others)
    return replace(found, report=replace(report, warnings=report.warnings + extra), remarks=found.remarks + extra)


def _check_evaluable(one: ConfigSet, found: CheckedSet) -> None:
    """What COCO's evaluation, which comes hours later, needs over and above training."""
    report = found.report
    if report.without_iscrowd:
        raise InputError(
            f"{one.where}: {report.without_iscrowd} annotations of {report.ann_file} lack 'iscrowd', at which COCO's "
            'evaluation stops with a KeyError; add iscrowd=0 to each'
        )
    words = [number for number in found.annotation_ids if not isinstance(number, (int, float))]
    if words:
        raise InputError(
            f"{one.where}: {len(words)} annotations of {report.ann_file} have an id that is no number, at which COCO's "
            f'evaluation stops; number them from 1 (found: {words[0]!r})'
        )
