"""The sets that a config names, checked against each other and against the model before training starts.

A single set is looked at by :func:`check_coco`. What this module adds is what only the config shows: the class list of
every set, ``num_classes`` of the model, the evaluators' files.
"""

from __future__ import annotations

import os
import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...config_options import as_list, type_name
from ...errors import InputError
from .class_list import check_class_list
from .evaluation_rules import GroundTruth, check_evaluable, read_ground_truth, unseen_warning
from .report import CheckedSet, CocoReport, check_coco, read_checked
from .small_boxes import small_boxes_warning

__all__ = ['CocoReport', 'Unchecked', 'check_class_list', 'check_coco', 'check_config', 'checked_sets', 'class_counts']

_SPLITS = ('train', 'val', 'test')
Steps = tuple[tuple[str, Mapping[str, Any]], ...]
"""Of a pipeline, each with its dotted key in the config."""
# Below these keys num_classes counts something else: ImageNet's classes, foreground or not, stuff.
_OTHER_CLASSES = frozenset({'backbone', 'rpn_head', 'semantic_head', 'data_preprocessor'})


@dataclass(frozen=True)
class ConfigSet:
    """One CocoDataset of a config, or one of a derived class, as mmdet builds it; its annotations are not read yet.

    ``steps`` are those of its pipeline, then of what wraps it. Sets of the same ``key`` hold the same.
    """

    where: str
    split: str
    kind: str
    steps: Steps
    dataset: Any
    classes: tuple[str, ...]
    classes_from: str
    need_boxes: bool
    key: Hashable

    @property
    def pipeline(self) -> list[Mapping[str, Any]]:
        """All steps that an image goes through."""
        return [step for _, step in self.steps]

    @property
    def image_dir(self) -> str | None:
        """Folder of the images; None where it is not on this machine."""
        path = str(self.dataset.data_prefix['img'])
        return None if _is_remote(path) else path or '.'

    @property
    def filter_empty(self) -> bool:
        """Whether images without an annotation of the classes are left out."""
        filters = {} if self.dataset.test_mode else self.dataset.filter_cfg or {}
        return bool(filters.get('filter_empty_gt', False))


@dataclass(frozen=True)
class Unchecked:
    """A set of a config that was not looked at: its place, its class, and why."""

    where: str
    kind: str
    why: str

    @property
    def warnings(self) -> tuple[str, ...]:
        """One sentence, as those of a :class:`CocoReport`."""
        return (f'not checked: {self.kind} of {self.where}: {self.why}',)


@dataclass(frozen=True)
class ReadSets:
    """What was read of a config's sets, each once, and what was not."""

    sets: tuple[tuple[ConfigSet, CheckedSet], ...]
    unchecked: tuple[Unchecked, ...]


def check_config(cfg: Mapping[str, Any]) -> list[CocoReport | Unchecked]:
    """Check every COCO-style set of a config, its class lists, ``num_classes`` and the evaluators' files.

    Each set is opened as training opens it: by its own class, ``CocoDataset`` or a derived one. Wrappers
    (RepeatDataset, ClassBalancedDataset, ConcatDataset, ...) are looked into. Sets of another kind and remote files
    are not looked at. A set that is named twice (validation and test, usually) is read and reported once.

    Args:
        cfg: an mmengine ``Config`` or a dict of the same form.

    Returns:
        One report for each distinct set, in the order train, val, test; then an :class:`Unchecked` for each that was
        not looked at. All have ``where`` and ``warnings``.

    Raises:
        InputError: what :func:`check_coco` raises, with the config's path in front; or class lists that differ between
            sets, ``num_classes`` that is not their length, an evaluator whose file is missing, or does not fit the set
            or COCO's evaluation, or one that the model does not give what it needs.
    """
    sets_read = read_sets(cfg)
    return [*(checked.report for _, checked in sets_read.sets), *sets_read.unchecked]


def checked_sets(cfg: Mapping[str, Any]) -> list[tuple[ConfigSet, CheckedSet]]:
    """As :func:`check_config`, with what was read of each distinct set."""
    return list(read_sets(cfg).sets)


def read_sets(cfg: Mapping[str, Any]) -> ReadSets:
    """As :func:`check_config`, with what was read of each distinct set and what was not."""
    nodes = [(split, *leaf) for split in _SPLITS for leaf in _leaves(cfg, split)]
    reasons = {where: _unreadable(node, where) for _, where, node, _ in nodes}
    unchecked = [Unchecked(where, type_name(node), why) for _, where, node, _ in nodes if (why := reasons[where])]
    sets = [_config_set(cfg, *leaf) for leaf in nodes if reasons[leaf[1]] is None]
    _check_same_classes(sets)
    if sets:
        _check_num_classes(cfg.get('model') or {}, sets[0])
    for config_set in sets:
        if not os.path.isfile(
            config_set.dataset.ann_file
        ):  # refused here, as the evaluator is given the same file as a rule
            _checked(config_set)
    evaluators = {split: _coco_evaluators(cfg, split) for split in _SPLITS[1:]}
    _check_keeps_selected(cfg)
    checked_by_key: dict[Hashable, tuple[ConfigSet, CheckedSet]] = {}
    for config_set in sets:
        checked = checked_by_key[config_set.key][1] if config_set.key in checked_by_key else _checked(config_set)
        if checked is None:
            unchecked.append(Unchecked(config_set.where, config_set.kind, 'it reads its file in a way of its own'))
        else:
            checked_by_key.setdefault(config_set.key, (config_set, checked))
    for split, metrics in evaluators.items():
        _check_evaluation(
            [config_set for config_set in sets if config_set.split == split and config_set.key in checked_by_key],
            metrics,
            checked_by_key,
        )
    return ReadSets(tuple(checked_by_key.values()), (*unchecked, *_remote_evaluators(cfg)))


def _leaves(cfg: Mapping[str, Any], split: str) -> Iterator[tuple[str, Mapping[str, Any], Steps]]:
    loader = cfg.get(f'{split}_dataloader') or {}
    return _datasets(loader.get('dataset'), f'{split}_dataloader.dataset')


def _datasets(node: Any, where: str, behind: Steps = ()) -> Iterator[tuple[str, Mapping[str, Any], Steps]]:
    """The data sets below a ``dataset`` entry that wrap no other, each with its place in the config and all steps."""
    if not isinstance(node, Mapping):
        return
    key, own = re.sub(r'\[(\d+)\]', r'.\1', where), enumerate(node.get('pipeline') or ())
    steps = (*((f'{key}.pipeline.{i}', step) for i, step in own if isinstance(step, Mapping)), *behind)
    if isinstance(node.get('datasets'), (list, tuple)):
        for index, child in enumerate(node['datasets']):
            yield from _datasets(child, f'{where}.datasets[{index}]', steps)
    elif node.get('dataset') is not None:
        yield from _datasets(node['dataset'], f'{where}.dataset', steps)
    else:
        yield where, node, steps


def _unreadable(node: Mapping[str, Any], where: str) -> str | None:
    """Why a set is not looked at: its class has nothing to do with COCO, or its file is not on this machine."""
    from mmdet.datasets import CocoDataset
    from mmdet.registry import DATASETS

    kind: Any = node.get('type')
    kind, name = DATASETS.get(kind) if isinstance(kind, str) else kind, type_name(node)
    if not isinstance(kind, type):
        raise InputError(
            f"{where}: no data set class {name!r} is registered; name its module in the config's custom_imports"
        )
    if not issubclass(kind, CocoDataset) or getattr(kind, 'COCOAPI', None) is not CocoDataset.COCOAPI:
        return 'it is no class of COCO files'
    paths = [str(node.get('data_root') or ''), str(node.get('ann_file') or '')]
    remote = next((path for path in reversed(paths) if _is_remote(path)), None)
    arguments = node.get('backend_args')
    backend = arguments.get('backend', 'local') if isinstance(arguments, Mapping) else 'local'
    if remote is None and backend == 'local':
        return None
    return f'its annotations are not on this machine ({remote or backend})'


def _config_set(cfg: Mapping[str, Any], split: str, where: str, node: Mapping[str, Any], steps: Steps) -> ConfigSet:
    from mmdet.registry import DATASETS

    metainfo = node.get('metainfo') or {}
    if 'CLASSES' in metainfo and 'classes' not in metainfo:
        raise InputError(f'{where}.metainfo: mmdet 3.x does not read CLASSES; write classes=(...), in small letters')
    settings = {**node, 'pipeline': [], 'serialize_data': False, 'lazy_init': True}
    try:
        dataset = DATASETS.build(settings)
    except Exception as error:  # a class of anyone's, which training would build too
        raise InputError(
            f'{where}: {type_name(node)} cannot be built: {type(error).__name__}: {error}; correct its settings'
        ) from error
    if not dataset.ann_file:
        raise InputError(f"{where}: {type_name(node)} needs ann_file='path of a JSON', got {dataset.ann_file!r}")
    if 'img' not in dataset.data_prefix:
        needed = "data_prefix=dict(img='folder of the images')"
        raise InputError(f'{where}: {type_name(node)} needs {needed}, got {dataset.data_prefix!r}')
    entry = f'{where}.metainfo.classes'
    try:
        classes = check_class_list(dataset.metainfo.get('classes'))
    except InputError as error:
        raise InputError(f'{entry}: {error}') from error
    evaluators = _mappings(cfg.get(f'{split}_evaluator'))
    submits = bool(evaluators) and all(evaluator.get('format_only', False) for evaluator in evaluators)
    return ConfigSet(
        where=where,
        split=split,
        kind=type_name(node),
        steps=steps,
        dataset=dataset,
        classes=classes,
        classes_from=entry if 'classes' in metainfo else f"{type_name(node)}'s own list, as {entry} is not set",
        need_boxes=not submits,
        key=(repr(sorted(settings.items())), not submits),
    )


def is_coco_metric(node: Mapping[str, Any]) -> bool:
    """Whether a config entry asks for mmdet's metric of COCO's AP, or ours that stands for it."""
    return type_name(node) in ('CocoMetric', 'FastCocoMetric')


def _mappings(value: Any) -> list[Mapping[str, Any]]:
    return [item for item in as_list(value) if isinstance(item, Mapping)]


def _is_remote(path: str) -> bool:
    return '://' in path or path.startswith('s3:')


def _check_same_classes(sets: list[ConfigSet]) -> None:
    for other in sets[1:]:
        first = sets[0]
        if other.classes == first.classes:
            continue
        differing = sorted(set(first.classes) ^ set(other.classes))
        difference = f'only one has {differing[:5]}' if differing else 'the order differs'
        raise InputError(
            f'the class lists differ ({difference}): {len(first.classes)} classes of {first.where} '
            f'({first.classes_from}), {len(other.classes)} of {other.where} ({other.classes_from}); give both the '
            'same metainfo'
        )


def _check_num_classes(model: Mapping[str, Any], first: ConfigSet) -> None:
    for where, entry in class_counts(model):
        value = entry['num_classes']
        if value != len(first.classes):
            raise InputError(
                f'{where}.num_classes={value}, but there are {len(first.classes)} classes ({first.classes_from}: '
                f'{", ".join(first.classes[:5])}{", ..." if len(first.classes) > 5 else ""}); '
                f'set {where}.num_classes={len(first.classes)} (there is no background class) or correct the class list'
            )


def class_counts(node: Any, where: str = 'model') -> Iterator[tuple[str, Any]]:
    """Every entry of a model's config whose ``num_classes`` counts the classes to detect, with its dotted key."""
    if isinstance(node, Mapping):
        if isinstance(node.get('num_classes'), int):
            yield where, node
        for key, value in node.items():
            if key not in _OTHER_CLASSES:
                yield from class_counts(value, f'{where}.{key}')
    elif isinstance(node, (list, tuple)):
        for index, value in enumerate(node):
            yield from class_counts(value, f'{where}[{index}]')


def _coco_evaluators(cfg: Mapping[str, Any], split: str) -> list[Mapping[str, Any]] | None:
    """The split's CocoMetrics that evaluate by a file of this machine; None where no evaluator is named.

    Raises:
        InputError: a file is missing.
    """
    evaluators = _mappings(cfg.get(f'{split}_evaluator'))
    coco_metrics = []
    for evaluator in evaluators:
        path = evaluator.get('ann_file')
        if not is_coco_metric(evaluator) or not isinstance(path, str) or _is_remote(path):
            continue
        if not os.path.isfile(path):
            raise InputError(
                f'{split}_evaluator.ann_file: no file {path}; it is not joined with data_root, so write the whole '
                f"path of {split}_dataloader's ann_file"
            )
        coco_metrics.append(evaluator)
    return coco_metrics if evaluators else None


def _remote_evaluators(cfg: Mapping[str, Any]) -> Iterator[Unchecked]:
    for split in _SPLITS[1:]:
        for evaluator in _mappings(cfg.get(f'{split}_evaluator')):
            path = str(evaluator.get('ann_file') or '')
            if is_coco_metric(evaluator) and _is_remote(path):
                why = f'its annotations are not on this machine ({path})'
                yield Unchecked(f'{split}_evaluator', type_name(evaluator), why)


def _check_keeps_selected(cfg: Mapping[str, Any]) -> None:
    """QuerySelectionMetric needs a model that tells of its queries."""
    for split in _SPLITS[1:]:
        named = any(
            type_name(evaluator) == 'QuerySelectionMetric' for evaluator in _mappings(cfg.get(f'{split}_evaluator'))
        )
        if named and not ((cfg.get('model') or {}).get('test_cfg') or {}).get('keep_selected'):
            raise InputError(
                f'{split}_evaluator has a QuerySelectionMetric, but model.test_cfg.keep_selected is not True, so the '
                'model would not tell of its queries; set it'
            )


def _checked(config_set: ConfigSet) -> CheckedSet | None:
    try:
        checked = read_checked(
            config_set.dataset,
            config_set.classes,
            config_set.image_dir,
            need_boxes=config_set.need_boxes,
            where=config_set.where,
        )
    except InputError as error:
        names_class_list = 'classes asked for' in str(error) or str(error).startswith('the class list')
        listed = f' (the class list is {config_set.classes_from})' if names_class_list else ''
        raise InputError(f'{config_set.where}: {error}{listed}') from error
    if checked is not None and config_set.image_dir is None:
        checked = checked.warned('not checked: whether the image files exist, as their folder is not on this machine')
    if checked is not None and config_set.split == 'train':
        checked = checked.warned(*filter(None, [small_boxes_warning(checked, config_set.steps)]))
    return checked


def _check_evaluation(
    sets: Sequence[ConfigSet],
    metrics: Sequence[Mapping[str, Any]] | None,
    checked_by_key: dict[Hashable, tuple[ConfigSet, CheckedSet]],
) -> None:
    """What COCO's evaluation asks of a split's files, by their own file where no metric is named; adds warnings."""
    sets = [config_set for config_set in sets if config_set.need_boxes]
    if metrics is None:
        for config_set in sets:
            _check_evaluable(config_set, checked_by_key[config_set.key][1], checked_by_key[config_set.key][1].truth, {})
        return
    for metric in metrics:
        own = {
            os.path.realpath(config_set.dataset.ann_file): checked_by_key[config_set.key][1].truth
            for config_set in sets
        }
        truth = own.get(os.path.realpath(metric['ann_file'])) or read_ground_truth(metric['ann_file'])
        detected_on = [number for config_set in sets for number in checked_by_key[config_set.key][1].image_ids]
        for config_set in sets:
            first, checked = checked_by_key[config_set.key]
            _check_evaluable(config_set, checked, truth, metric)
            warnings = [unseen_warning(truth, config_set.classes, detected_on)]
            if truth is not checked.truth:
                warnings.append(f'the evaluator reads another file than the dataset: {truth.path}')
            checked_by_key[config_set.key] = first, checked.warned(*filter(None, warnings))


def _check_evaluable(config_set: ConfigSet, checked: CheckedSet, truth: GroundTruth, metric: Mapping[str, Any]) -> None:
    try:
        check_evaluable(
            truth, config_set.classes, checked.image_ids, sort_categories=bool(metric.get('sort_categories'))
        )
    except InputError as error:
        raise InputError(f'{config_set.where}: {error}') from error
