"""The first step and the first evaluation of a run, on one small image, before it starts.

Head and neck that do not fit each other, a metric that needs masks, a pipeline that lacks a step: what would end a run
in its first step or, hours later, in its first validation, ends it here. All is done on copies; the run that follows is
the same with it and without.
"""

from __future__ import annotations

import copy
import io
import random
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.evaluator import Evaluator
from mmengine.logging import MessageHub, MMLogger
from mmengine.optim import OptimWrapper, build_optim_wrapper
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from ...datasets.stages import enter_stage
from ...errors import InputError
from ...models.data_preprocessors.batch_blend import BatchBlend
from ..hooks import AugmentationTimetableHook
from .config_mistakes import named_mistakes
from .model_mistakes import MapShapes, check_matching_costs, missing_meta, missing_truth, predicted
from .single_evaluation import check_save_best, evaluate_image
from .small_batch import (
    can_shrink,
    check_batches,
    is_detection,
    own_pipelines,
    read_image,
    small_batch,
    smallest_image,
)

SIDES = (64, 256, None)
"""px of the square image that is tried; None: as its pipeline gives it. A larger one where a smaller one does not go
through, as a selection may want more queries than that has tokens; none that is larger than the pipeline's."""
_DRAWS = 4  # images read in a stage whose transforms are drawn
_SIZES = 32  # drawn of an image
_ESCAPE = 'should the run be right after all, --no-check starts it untried'


def first_pass(runner: Any, model: nn.Module, cfg: Config, mode: str) -> list[str]:
    """Try a step (of a training) and an evaluation, on the data, metrics and optimizer of a run.

    Data sets and loops that the runner builds for it are those that it goes on with. Every process does the same, as
    losses and batch norms can wait for those of the others; metrics are tried in the first alone.

    Args:
        runner: mmengine's, not started.
        model: its model, built, without a wrapper.
        cfg: what both were built from.
        mode: 'train' or 'test'.

    Returns:
        What was not tried, and why; and where a model has more queries than the tokens of an image to train on.

    Raises:
        InputError: something fails, as it would in the run; names the entry of the config.
    """
    left_out: list[str] = []
    notes: list[str] = []
    if mode == 'train':
        check_matching_costs(model, cfg.model)
        with named_mistakes(cfg, 'building the training'):
            loader = runner.train_loop.dataloader
        check_batches(loader, 'train_dataloader')
        with _aside():
            left_out += _step(runner, _twin(model), loader, cfg, notes)
    split = 'val' if mode == 'train' else mode
    with named_mistakes(cfg, 'building the evaluation'):
        loop = runner.val_loop if mode == 'train' else runner.test_loop
    if loop is not None:
        check_batches(loop.dataloader, f'{split}_dataloader')
        with _aside():
            left_out += _evaluation(runner.rank, _twin(model), loop, cfg, split)
    return [*(f'not tried: {reason}' for reason in left_out), *notes]


def _step(runner: Any, twin: Any, loader: DataLoader[Any], cfg: Config, notes: list[str]) -> list[str]:
    """Optimizer, schedules, an image, losses, gradients, a step; adds to ``notes``."""
    wrapper = _optimizer(runner, twin, cfg)
    if isinstance(loader.dataset, IterableDataset):
        return ['a training step, as its data set cannot be asked for a single image']
    with named_mistakes(cfg, 'reading an image to train on', sections=('train_dataloader',)):
        data = read_image(loader.dataset)
    with named_mistakes(cfg, 'the pipeline to switch to', sections=('custom_hooks',)):
        _try_later_pipelines(runner.hooks, loader.dataset)
    if not is_detection(data):
        return ['a training step, as its data set gives something else than an image with boxes']
    for module in twin.modules():
        if isinstance(module, BatchBlend):  # also one that waits for a later stage
            module.check([data['data_samples']])
    maps = MapShapes(twin)
    _check_smallest(maps, cfg, loader.dataset, 'train_dataloader', _SIZES)
    twin.train()

    def step(side: int | None) -> None:
        batch = twin.data_preprocessor(small_batch(loader, data, side, to_train=True), side is None)
        if wrapper is None:
            twin.parse_losses(_run(twin, batch, 'loss'))
            return
        with wrapper.optim_context(twin):
            loss = twin.parse_losses(_run(twin, batch, 'loss'))[0]
        wrapper.update_params(loss)

    with named_mistakes(
        cfg,
        'a training step',
        sections=('model', 'optim_wrapper'),
        facts=lambda error: [
            *missing_meta(error, data['data_samples'].metainfo, 'train_dataloader'),
            *missing_truth(data['data_samples'].gt_instances),
            *maps.facts(error, cfg.model),
            _ESCAPE,
        ],
    ):
        _at_some_size(step, data)
    twin.eval()
    notes += maps.fewer_tokens(tuple(data['inputs'].shape[-2:]))
    return [] if wrapper is not None else ['the optimizer, which is not built as mmengine.Runner builds a single one']


def _optimizer(runner: Any, twin: nn.Module, cfg: Config) -> OptimWrapper | None:
    """The run's optimizer for the copy of its model, with schedules; None where it is no single one of ``Runner``."""
    settings = runner.optim_wrapper
    if not isinstance(settings, Mapping) or not hasattr(runner, 'build_param_scheduler'):
        return None
    with named_mistakes(cfg, 'building the optimizer', sections=('optim_wrapper',)):
        wrapper = build_optim_wrapper(twin, settings)
    if runner.param_schedulers is not None:
        runner.optim_wrapper = wrapper  # where it looks for it
        try:
            with named_mistakes(cfg, 'building the schedules', sections=('param_scheduler',)):
                runner.build_param_scheduler(copy.deepcopy(runner.param_schedulers))
        finally:
            runner.optim_wrapper = settings
    if not isinstance(wrapper, OptimWrapper):
        return None
    wrapper.initialize_count_status(twin, 0, 1)
    return wrapper


def _try_later_pipelines(hooks: Sequence[Any], dataset: Any) -> None:
    """Those that mmdet's ``PipelineSwitchHook`` builds when their epoch has come, and the stages of a timetable."""
    for hook in hooks:
        for stage in (
            dict.fromkeys(name for name, _ in hook.timetable) if isinstance(hook, AugmentationTimetableHook) else ()
        ):
            twin = own_pipelines(dataset)
            enter_stage(twin, stage)
            for _ in range(_DRAWS):
                read_image(twin)
        later = getattr(hook, 'switch_pipeline', None)
        if later is not None:
            twin = own_pipelines(dataset)
            twin.pipeline = Compose(later)
            read_image(twin)


def _evaluation(rank: int, twin: Any, loop: Any, cfg: Config, split: str) -> list[str]:
    """An image, detections, metrics."""
    section, dataset = f'{split}_dataloader', loop.dataloader.dataset
    if isinstance(dataset, IterableDataset):
        return ['an evaluation, as its data set cannot be asked for a single image']
    with named_mistakes(cfg, 'reading an image to evaluate', sections=(section,)):
        data = read_image(dataset, with_boxes=False)
    if not is_detection(data):
        return ['an evaluation, as its data set gives something else than an image with boxes']
    meta, maps = data['data_samples'].metainfo, MapShapes(twin)
    _check_smallest(maps, cfg, dataset, section)
    twin.eval()

    def predict(side: int | None) -> tuple[Any, Any]:
        batch = small_batch(loop.dataloader, data, side, to_train=False)
        with torch.no_grad():
            return batch, _run(twin, twin.data_preprocessor(batch, False), 'predict')

    with named_mistakes(
        cfg,
        'predicting an image',
        sections=('model',),
        facts=lambda error: [
            *missing_meta(error, meta, section),
            *maps.facts(error, cfg.model),
            _ESCAPE,
        ],
    ):
        batch, predicted_samples = _at_some_size(predict, data)
    if type(loop.evaluator) is not Evaluator:
        return [f'the metrics, which {type(loop.evaluator).__name__} evaluates in its own way']
    if rank != 0:
        return []
    with named_mistakes(
        cfg,
        'evaluating an image',
        sections=(f'{split}_evaluator',),
        facts=lambda error: [*missing_meta(error, meta, section), *predicted(predicted_samples), _ESCAPE],
    ):
        names, left_out = evaluate_image(loop.evaluator, batch, predicted_samples)
    if split == 'val' and not left_out:
        check_save_best(cfg, names)
    return left_out


def _check_smallest(maps: MapShapes, cfg: Config, dataset: Any, section: str, draws: int = 1) -> None:
    """The image that is tried may be a larger one than others are."""
    if not maps.selects_tokens(cfg.model):
        return
    with named_mistakes(cfg, 'reading the smallest image', sections=(section,)):
        image = smallest_image(dataset, draws)
    if image is not None:
        maps.model.eval()
        maps.check_tokens(cfg.model, image, section)


def _at_some_size(run: Callable[[int | None], Any], data: Mapping[str, Any]) -> Any:
    """Run on the smallest image on which it goes through; raises what the last one does."""
    *small, last = SIDES if can_shrink(data['data_samples']) else SIDES[-1:]
    for side in small:
        if side > min(data['inputs'].shape[-2:]):
            break
        try:
            return run(side)
        except InputError:
            raise
        except Exception:
            continue
    return run(last)


def _run(model: nn.Module, batch: Any, mode: str) -> Any:
    return model(**batch, mode=mode) if isinstance(batch, Mapping) else model(*batch, mode=mode)


def _twin(model: nn.Module) -> nn.Module:
    """A copy of the model, its weights finite: some modules leave theirs to what the training does first."""
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.masked_fill_(~(parameter.abs() < 10), 0.0)
    return twin


@contextmanager
def _aside() -> Iterator[None]:
    """Inside: random numbers of its own, the same in every process; no log and no output; a step count."""
    logger, hub = MMLogger.get_current_instance(), MessageHub.get_current_instance().runtime_info
    counts = [name for name in ('iter', 'epoch', 'max_iters', 'max_epochs') if name not in hub]
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    python, numpy = random.getstate(), np.random.get_state()
    hub.update(dict.fromkeys(counts, 0))
    for handler in logger.handlers:
        handler.addFilter(_nothing)
    try:
        with torch.random.fork_rng(devices), redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter('ignore')
            random.seed(0)
            np.random.seed(0)
            torch.manual_seed(0)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        for handler in logger.handlers:
            handler.removeFilter(_nothing)
        for name in counts:
            hub.pop(name, None)


def _nothing(_record: object) -> bool:
    return False
