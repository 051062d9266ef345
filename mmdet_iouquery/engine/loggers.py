"""``iouquery train --log``: curves, selection quality and sample detections in TensorBoard, MLflow, W&B or tables."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mmdet.registry import MODELS
from mmengine.config import Config, ConfigDict

from ..compat import find_module
from ..config_options import as_list, type_name
from ..errors import InputError
from ..evaluation import QuerySelectionMetric
from ..models.dense_heads import RTDETRHead
from ..models.hosts.query_parts import QueryParts
from .hooks.training_log_hook import TrainingLogHook
from .logs import CsvLog, MlflowLog, TensorboardLog, TrainingLog, WandbLog, mlflow_log
from .preflight.config_mistakes import alike
from .processes import process_rank


class Logger(NamedTuple):
    """What a name of ``--log`` stands for."""

    back_end: type[TrainingLog]
    modules: tuple[str, ...] = ()
    """That it imports."""
    stores: tuple[str, ...] = ()
    """The same where it writes to a database of its own."""


LOGGERS = {
    'csv': Logger(CsvLog),
    'mlflow': Logger(MlflowLog, ('mlflow',), ('sqlalchemy', 'alembic')),
    'tensorboard': Logger(TensorboardLog, ('tensorboard',)),
    'wandb': Logger(WandbLog, ('wandb',)),
}
_PACKAGES = {'mlflow': 'mlflow-skinny'}
"""Whose names are not those of their modules; all of MLflow would bring pandas, scikit-learn and more."""


def add_loggers(cfg: Config, names: Sequence[str]) -> None:
    """Have a training log to these, beside what mmengine logs.

    ``cfg`` gets the back ends and their hook; validations are logged by iteration; and where the model selects queries
    among encoder tokens and the validation loads ground truth, a ``QuerySelectionMetric`` is computed with the others.
    The training itself is the same. A config that has all this already is given it once.

    Args:
        names: some of :data:`LOGGERS`.

    Raises:
        InputError: another name; what it needs is not installed; the config's ``LoggerHook`` is switched off.
    """
    names = list(dict.fromkeys(name.strip() for name in names))
    for name in names:
        _check(name)
    _add_back_ends(cfg, names)
    ground_truth = loads_ground_truth(cfg)
    hooks = [hook for hook in cfg.get('custom_hooks') or [] if type_name(hook) != TrainingLogHook.__name__]
    cfg.custom_hooks = [*hooks, dict(type=TrainingLogHook.__name__, logs=names, ground_truth=ground_truth)]
    if cfg.get('val_evaluator') and not _has_selection_quality(cfg):
        reason = _no_selection_quality(cfg) if ground_truth else 'val_dataloader has no LoadAnnotations after Resize'
        if not reason:
            cfg.model.test_cfg = {**(cfg.model.get('test_cfg') or {}), 'keep_selected': True}
            cfg.val_evaluator = [*as_list(cfg.val_evaluator), ConfigDict(type=QuerySelectionMetric.__name__)]
        elif process_rank(cfg.get('launcher', 'none')) == 0:
            print(f'note: --log has no selection quality to log: {reason}')


def loads_ground_truth(cfg: Mapping[str, Any]) -> bool:
    """Whether data samples of the validation have ground truth in px of the image as it came."""
    pipeline = ((cfg.get('val_dataloader') or {}).get('dataset') or {}).get('pipeline') or []
    steps = [type_name(step) for step in pipeline]
    return 'LoadAnnotations' in steps and not any('Resize' in step for step in steps[steps.index('LoadAnnotations') :])


def _check(name: str) -> None:
    if name not in LOGGERS:
        parts = [f'--log {name or repr(name)}: there is no such log', *alike(name, [*LOGGERS])]
        raise InputError('; '.join([*parts, f'name {", ".join(LOGGERS)}, or some of them with commas between']))
    modules = LOGGERS[name].modules
    if not (name == 'mlflow' and os.environ.get(mlflow_log.URI)):
        modules += LOGGERS[name].stores
    missing = [module for module in modules if find_module(module) is None]
    if missing:
        packages = ' '.join(_PACKAGES.get(module, module) for module in missing)
        raise InputError(
            f'--log {name} needs {" and ".join(missing)}: python -m pip install {packages}, or install this '
            f"package as 'mmdet-iouquery[log-{name}]'"
        )


def _add_back_ends(cfg: Config, names: Sequence[str]) -> None:
    visualizer = cfg.get('visualizer') or ConfigDict(type='DetLocalVisualizer', name='visualizer')
    back_ends = visualizer.get('vis_backends') or [dict(type='LocalVisBackend')]
    ours = {logger.back_end.__name__ for logger in LOGGERS.values()}
    others = [back_end for back_end in as_list(back_ends) if type_name(back_end) not in ours]
    added = [dict(type=LOGGERS[name].back_end.__name__, name=name) for name in names]
    cfg.visualizer = {**visualizer, 'vis_backends': [*others, *added]}
    hooks = dict(cfg.get('default_hooks') or {})
    hooks.setdefault('logger', dict(type='LoggerHook'))
    if hooks['logger'] is None:
        raise InputError('--log: default_hooks.logger is None, so there is nothing to log; take it out of the config')
    hooks['logger'] = {**hooks['logger'], 'log_metric_by_epoch': False}
    cfg.default_hooks = hooks


def _has_selection_quality(cfg: Mapping[str, Any]) -> bool:
    return any(type_name(metric) == QuerySelectionMetric.__name__ for metric in as_list(cfg.get('val_evaluator')))


def _no_selection_quality(cfg: Mapping[str, Any]) -> str:
    """Why a config's model has no selected queries to compare with ground truth; empty: it has."""
    if any('metrics' in metric for metric in as_list(cfg.get('val_evaluator'))):
        return "val_evaluator names an evaluator; add dict(type='QuerySelectionMetric') to its metrics"
    model = cfg.get('model') or {}
    head = model.get('bbox_head')
    if isinstance(head, Mapping) and _is(head, RTDETRHead):
        selector = head.get('query_selector') or dict(type='IoUAwareQuerySelector')
    else:
        selector = (model.get('query_selector') or {}) if _is(model, QueryParts) else {}
    selects_tokens = getattr(_class(selector), 'selects_tokens', False)
    return '' if selects_tokens else 'the model does not select queries among encoder tokens'


def _is(entry: Mapping[str, Any], kind: type[Any]) -> bool:
    """Whether a config entry asks for a class, or one derived from it."""
    built = _class(entry)
    return isinstance(built, type) and issubclass(built, kind)


def _class(entry: Mapping[str, Any]) -> Any:
    """What is registered by the name that a config entry asks for; None: nothing is, or it names none."""
    return MODELS.get(type_name(entry)) if entry.get('type') else None
