"""How long a training step and a prediction take, of all configs in turn, so that other work hits them all alike.

The times that runs record are of whatever the machine did beside them, and of runs on different days.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, init_default_scope
from mmengine.runner import Runner

from ...cpu import accelerate_training
from ...deploy import prepare_for_inference
from ...engine.detector import read_config
from ...engine.launch import report_dataset
from ...errors import InputError
from ...file_io import write_json
from ..timing import time_in_turn
from .run_results import RESULT_NAME, RunResult
from .settings import CONFIG_NAME


class Times(NamedTuple):
    """Median seconds."""

    step: float
    """A training step of the config's batch: forward, backward, optimiser; without loading the images."""
    image: float
    """From one validation image to its detections, the model prepared for inference."""


NAME = 'times.json'


def kept(work_dir: Path, names: Iterable[str]) -> dict[str, Times] | None:
    """Those of the last call that measured, by config; None: not of all that are named, or some have trained since.

    Raises:
        InputError: the file is not one of :func:`measured`.
    """
    path = work_dir / NAME
    if not path.is_file():
        return None
    try:
        times = {name: Times(**seconds) for name, seconds in json.loads(path.read_text(encoding='utf-8')).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(f'{path} holds no times of `iouquery compare` ({error}); remove it') from error
    wanted = [*names]
    trained = [result.stat().st_mtime for name in wanted for result in work_dir.glob(f'{name}/seed_*/{RESULT_NAME}')]
    if not times.keys() >= set(wanted) or max(trained, default=0.0) > path.stat().st_mtime:
        return None
    return {name: times[name] for name in wanted}


def measured(work_dir: Path, results: Sequence[RunResult], rounds: int) -> dict[str, Times]:
    """Time the models of finished runs by config, each ``rounds`` times, with weights at random, and write it down.

    Raises:
        InputError: a config's data are not where they were.
    """
    configs = {
        run.config: read_config(str(work_dir / run.config / f'seed_{run.seed}' / CONFIG_NAME)) for run in results
    }
    for cfg in configs.values():
        report_dataset(cfg, splits=('train', 'val'))
    print(f'== timing {len(configs)} configs, {rounds} steps and images of each', flush=True)
    medians = []
    for side in (_training_step, _prediction):
        timings = time_in_turn({name: side(cfg) for name, cfg in configs.items()}, rounds)
        medians.append({name: timing.median for name, timing in timings.items()})
    steps, images = medians
    times = {name: Times(steps[name], images[name]) for name in configs}
    write_json(work_dir / NAME, {name: seconds._asdict() for name, seconds in times.items()})
    return times


def _training_step(cfg: Config) -> Callable[[], object]:
    model = _model(cfg).train()
    if next(model.parameters()).device.type == 'cpu' and _trains_accelerated(cfg):
        accelerate_training(model)
    loader = {**cfg.train_dataloader, 'num_workers': 0, 'persistent_workers': False}
    batch = next(iter(Runner.build_dataloader(loader, seed=0)))
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper)
    return lambda: model.train_step(copy.deepcopy(batch), optimizer)  # a data preprocessor may write into it


def _prediction(cfg: Config) -> Callable[[], object]:
    model: Any = prepare_for_inference(_model(cfg))
    batch = pseudo_collate([DATASETS.build(cfg.val_dataloader.dataset)[0]])

    def call() -> object:
        with torch.no_grad():
            return model.test_step(copy.deepcopy(batch))

    return call


def _model(cfg: Config) -> Any:
    init_default_scope(cfg.get('default_scope') or 'mmdet')
    return MODELS.build(cfg.model).to('cuda' if torch.cuda.is_available() else 'cpu')


def _trains_accelerated(cfg: Mapping[str, Any]) -> bool:
    hooks = [*(cfg.get('custom_hooks') or []), *(cfg.get('default_hooks') or {}).values()]
    return any(hook.get('type') == 'AccelerateTrainingHook' for hook in hooks if hook)
