"""The config of each run of a comparison, made from the config that a person names."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmdet.registry import MODELS
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope

from ...config_files import model_name
from ...config_options import as_list, differences
from ...datasets.coco.checks import is_coco_metric
from ...engine.detector import begin_at_random, read_config
from ...engine.run_settings import (
    annotation_checksums,
    changed_files,
    has_trained,
    record,
    recorded,
    recorded_checksums,
    settings_of,
)
from ...errors import InputError
from ...file_io import write_text
from ..quickstart.digits import build_digits
from ..train.fit import Wishes, fitted
from .run_results import RESULT_NAME
from .schedule import set_iters

DIGITS = Path('data') / 'digits'
_STEPS = 'train_cfg.max_iters'
CONFIG_NAME = 'config.py'


class Changes(NamedTuple):
    """What the command line changes in every config."""

    fit: Wishes = Wishes()
    """Data, size and batch."""
    iters: int | None = None
    evaluations: int = 5
    options: Mapping[str, Any] | None = None
    random_weights: bool = False
    """Begin with them, the backbone's too."""


class Run(NamedTuple):
    """One training: what the config's model is called, the seed, the run's folder and its whole config."""

    name: str
    seed: int
    folder: Path
    cfg: Config


def changed_config(path: Path, changes: Changes) -> Config:
    """The config of a file with the changes; the options of the command line come last.

    Raises:
        InputError: the config can't be compared: it has no COCO box metric, or a change doesn't fit it.
    """
    cfg = read_config(str(path))
    if cfg.get('train_cfg') is None or cfg.get('val_evaluator') is None:
        raise InputError(f'{path}: a config to compare needs train_cfg, val_dataloader and val_evaluator')
    cfg = fitted(cfg, changes.fit)
    if changes.random_weights:
        begin_at_random(cfg)
    if changes.iters is not None:
        set_iters(cfg, changes.iters, changes.evaluations)
    if changes.options:
        cfg.merge_from_dict(dict(changes.options))
    _require_box_metric(path, cfg)
    return cfg


def runs_of(path: Path, cfg: Config, seeds: list[int], work_dir: Path) -> list[Run]:
    """The runs of one config, one for each seed, in ``work_dir``/NAME/seed_N."""
    runs, name = [], model_name(path)
    for seed in seeds:
        own = Config(cfg.to_dict())
        own.randomness = ConfigDict(cfg.get('randomness') or {}, seed=seed)
        recorder = ConfigDict(type='RunRecorder', name=name, seed=seed, priority=55)
        own.custom_hooks = [*_with_progress(cfg.get('custom_hooks') or []), recorder]
        imports = cfg.get('custom_imports') or ConfigDict(imports=[], allow_failed_imports=False)
        own.custom_imports = ConfigDict(imports, imports=[*imports.imports, 'mmdet_iouquery.apps.compare.recorder'])
        own.experiment_name = f'{name}_seed_{seed}'
        runs.append(Run(name, seed, work_dir / name / f'seed_{seed}', own))
    return runs


def _with_progress(hooks: list[ConfigDict]) -> list[ConfigDict]:
    known = any(hook.get('type') == 'ProgressHook' for hook in hooks)
    return [*hooks] if known else [*hooks, ConfigDict(type='ProgressHook')]


def require_same_settings(run: Run) -> None:
    """Raise :class:`InputError` where the folder of a run holds one of other settings that has trained."""
    differing = _differences(run)
    if differing:
        raise InputError(
            f'{run.folder} holds a run with other settings ({differing}); choose another --work-dir, or train it again '
            'with --restart'
        )


def set_others_aside(run: Run) -> None:
    """Rename the folder of a run with other settings, where the run would write to."""
    if _differences(run):
        target = run.folder.rename(run.folder.with_name(time.strftime(f'before-%Y%m%d-%H%M%S_{run.folder.name}')))
        print(f'the earlier run of {run.folder} is in {target} now')


def _differences(run: Run) -> str:
    before = recorded(run.folder)
    if before is None or not ((run.folder / RESULT_NAME).is_file() or has_trained(run.folder)):
        return ''
    asked = settings_of(run.cfg)
    if before.get(_STEPS) != asked.get(_STEPS):  # from which schedules and intervals follow
        return differences({'--iters': before.get(_STEPS)}, {'--iters': asked.get(_STEPS)})
    changed = changed_files(recorded_checksums(run.folder), annotation_checksums(asked))
    return '; '.join(filter(None, [differences(before, asked), *(f'{path} changed since' for path in changed)]))


def write_settings(run: Run) -> None:
    """Write the run's config, and what :func:`require_same_settings` reads."""
    run.folder.mkdir(parents=True, exist_ok=True)
    settings = settings_of(run.cfg)
    record(run.folder, settings, annotation_checksums(settings))
    write_text(run.folder / CONFIG_NAME, run.cfg.pretty_text)


def require_same_data(paths: Sequence[Path], configs: Sequence[Config]) -> None:
    """Raise :class:`InputError` where two configs train on, or are evaluated on, different annotations."""
    for split in ('train', 'val'):
        files = [_ann_files(cfg[f'{split}_dataloader'].dataset) for cfg in configs]
        for path, other in zip(paths, files):
            if other != files[0]:
                raise InputError(
                    f'{paths[0]} and {path} have different data ({split}: {", ".join(files[0])} and '
                    f'{", ".join(other)}); a comparison needs the same: give --data FOLDER'
                )


def _ann_files(dataset: ConfigDict) -> list[str]:
    return [os.path.join(node.get('data_root') or '', node.ann_file) for node in coco_datasets(dataset)]


def require_buildable(path: Path, cfg: Config) -> None:
    """Build a config's model once, so that a mistake in the last config shows before the first one has trained."""
    init_default_scope(cfg.get('default_scope') or 'mmdet')
    try:
        MODELS.build(Config(cfg.to_dict()).model)
    except Exception as error:
        raise InputError(f'{path}: the model cannot be built: {error}; correct the config') from error


def build_missing_digits(cfg: Config) -> None:
    """Make the digits set where a config trains on it and it isn't there."""
    for node in coco_datasets(cfg.train_dataloader.dataset):
        if Path(node.get('data_root') or '') == DIGITS and not DIGITS.exists():
            build_digits(DIGITS)


def coco_datasets(node: Any) -> Iterator[ConfigDict]:
    """The CocoDatasets of a ``dataset`` entry, wrapped ones included."""
    if not isinstance(node, Mapping):
        return
    if node.get('type') == 'CocoDataset':
        yield node
    for child in node.get('datasets') or [node.get('dataset')]:
        yield from coco_datasets(child)


def _require_box_metric(path: Path, cfg: Config) -> None:
    for evaluator in as_list(cfg.val_evaluator):
        if is_coco_metric(evaluator) and 'bbox' in as_list(evaluator.get('metric', 'bbox')):
            return
    raise InputError(f"{path}: a comparison reads COCO's AP; give val_evaluator=dict(type='CocoMetric', metric='bbox')")
