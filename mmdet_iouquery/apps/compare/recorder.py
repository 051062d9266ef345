"""The hook that measures inside a run of a comparison."""

from __future__ import annotations

import datetime
import hashlib
import os
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from mmdet.registry import HOOKS
from mmengine.dataset import pseudo_collate
from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop, Runner

from ..cost import count_flops, count_parameters, device_name, peak_memory_mb
from .run_results import RunResult, evaluation_of, loss_curve, write_result

PARENT_VARIABLE = 'MMDET_IOUQUERY_COMPARE_PID'
_KEY = 'comparison'
_UNTIMED_STEPS = 3  # of each process: memory is allocated and kernels are chosen in them


@HOOKS.register_module()
class RunRecorder(Hook):
    """Measures a run and writes its ``result.json`` at the end.

    What it has measured lies in mmengine's message hub, so each checkpoint carries it: a run that is resumed goes on
    with the figures that belong to the step it resumes from. An evaluation that an interruption cost is made up for.

    Args:
        name: of the config, for the record.
        seed: of the run, for the record.
    """

    # After the EMA's update, which is part of a step, and before the logger, which resets the GPU's peak memory, and
    # the checkpoint, which is to carry this step.
    priority = 55

    def __init__(self, name: str, seed: int) -> None:
        self.name, self.seed = name, seed
        self.steps_here = 0
        self.started = 0.0

    def before_train(self, runner: Runner) -> None:
        hub = runner.message_hub
        if runner.iter == 0:
            state = dict(losses=[], times=[], order='', evaluations=[], memory_mb=0.0)
            image_size, flops = _forward_cost(runner)
            hub.update_info(_KEY, dict(state, image_size=list(image_size), flops=flops))
        self.state: dict[str, Any] = hub.get_info(_KEY)
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        if _evaluation_due(runner) and not self._evaluated(runner):
            runner.val_loop.run()

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        _require_parent()
        self.started = _now()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict[str, Any] | None = None
    ) -> None:
        seconds = _now() - self.started
        self.steps_here += 1
        if self.steps_here > _UNTIMED_STEPS:
            self.state['times'].append(seconds)
        self.state['losses'].append((outputs or {})['loss'].item())
        ids = [sample.metainfo.get('img_id') for sample in data_batch['data_samples']]
        self.state['order'] = hashlib.sha256(f'{self.state["order"]}{ids}'.encode()).hexdigest()[:16]
        self._note_memory()

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        evaluations, losses = self.state['evaluations'], self.state['losses']
        before = evaluations[-1]['step'] if evaluations else 0
        evaluation = evaluation_of(len(losses), losses[before:], metrics or {})
        evaluations.append(evaluation._asdict())

    def after_train(self, runner: Runner) -> None:
        if not self._evaluated(runner):
            runner.val_loop.run()

    def after_run(self, runner: Runner) -> None:
        _require_parent()
        self._note_memory()
        result = RunResult.from_json(
            dict(
                config=self.name,
                seed=self.seed,
                steps=len(self.state['losses']),
                batch_size=runner.train_dataloader.batch_size or runner.train_dataloader.batch_sampler.batch_size,
                image_size=self.state['image_size'],
                val_set=str(getattr(runner.val_dataloader.dataset, 'ann_file', '')),
                data_order=self.state['order'],
                device=device_name(),
                torch=torch.__version__,
                finished=datetime.datetime.now().isoformat(timespec='seconds'),
                parameters=count_parameters(runner.model),
                flops=self.state['flops'],
                step_seconds=median(self.state['times']) if self.state['times'] else None,
                memory_mb=self.state['memory_mb'],
                evaluations=self.state['evaluations'],
                losses=[point._asdict() for point in loss_curve(self.state['losses'])],
            )
        )
        write_result(Path(runner.work_dir), result)

    def _evaluated(self, runner: Runner) -> bool:
        evaluations = self.state['evaluations']
        return bool(evaluations) and evaluations[-1]['step'] == len(self.state['losses'])

    def _note_memory(self) -> None:
        self.state['memory_mb'] = max(self.state['memory_mb'], peak_memory_mb())


def _evaluation_due(runner: Runner) -> bool:
    """Whether the step that a run resumes from is one of those that are evaluated."""
    loop = runner.train_loop
    by_iter = isinstance(loop, IterBasedTrainLoop)
    done = loop.iter if by_iter else loop.epoch
    return done > 0 and done >= loop.val_begin and done % loop.val_interval == 0


def _forward_cost(runner: Runner) -> tuple[tuple[int, int], int]:
    """Height and width of the first validation image in the network, and the operations of one forward pass on it."""
    model = runner.model.eval()
    data = model.data_preprocessor(pseudo_collate([runner.val_dataloader.dataset[0]]), False)
    height, width = data['inputs'].shape[-2:]
    return (height, width), count_flops(lambda: model(**data, mode='predict'))


def _now() -> float:
    """A time in seconds at which the device has done all that it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def _require_parent() -> None:
    """Leave when the comparison that started this run is gone: called again, it starts another in the same folder."""
    parent = os.environ.get(PARENT_VARIABLE)
    if parent is not None and int(parent) != os.getppid():
        sys.exit('the comparison that started this run has ended; this run ends too, and goes on with the next one')
