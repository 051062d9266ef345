"""A training that takes milliseconds, with everything that a checkpoint holds: a moving average, Adam, a schedule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import Tensor, nn

DATA_SIZE, BATCH_SIZE = 8, 2
EPOCH = DATA_SIZE // BATCH_SIZE


class ToyModel(BaseModel):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 1)
        nn.init.ones_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, inputs: Tensor, mode: str = 'tensor') -> Any:
        outputs = self.linear(inputs)
        return {'loss': (outputs**2).mean()} if mode == 'loss' else list(outputs)


class ToyData(torch.utils.data.Dataset[dict[str, Tensor]]):
    def __len__(self) -> int:
        return DATA_SIZE

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {'inputs': torch.tensor([1.0, 2.0, 3.0])}  # always the same, so that the order cannot matter


class CountMetric(BaseMetric):
    """The number of batches, as a score that rises from one evaluation to the next."""

    evaluations = 0

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results.append(1)

    def compute_metrics(self, results: list[int]) -> dict[str, float]:
        CountMetric.evaluations += 1
        return {'acc': CountMetric.evaluations}


class CallAt(Hook):
    """Call something at one point of the training."""

    def __init__(self, stage: str, at: int, what: Any) -> None:
        self.count = 0
        self.at, self.what = at, what
        setattr(self, stage, self._reached)

    def _reached(self, runner: Runner, *_: Any, **__: Any) -> None:
        if self.count == self.at:
            self.what(runner)
        self.count += 1


def toy_runner(
    work_dir: Path,
    *hooks: Hook,
    by_epoch: bool,
    length: int,
    resume: Path | None = None,
    workers: int = 0,
    validate: int | None = None,
    data: ToyData | None = None,
    **checkpoint: Any,
) -> Runner:
    """A runner of ``length`` epochs of ``EPOCH`` iterations, or of ``length`` iterations."""
    loader: dict[str, Any] = {
        'batch_size': BATCH_SIZE,
        'num_workers': workers,
        'persistent_workers': workers > 0,
        'dataset': data or ToyData(),
        'collate_fn': {'type': 'default_collate'},
        'sampler': {'type': 'DefaultSampler' if by_epoch else 'InfiniteSampler', 'shuffle': False},
    }
    validation: dict[str, Any] = {}
    if validate is not None:
        validation = {
            'val_dataloader': {**loader, 'sampler': {'type': 'DefaultSampler', 'shuffle': False}},
            'val_cfg': {},
            'val_evaluator': [CountMetric()],
        }
    return Runner(
        model=ToyModel(),
        work_dir=str(work_dir),
        train_dataloader=loader,
        train_cfg={
            'by_epoch': by_epoch,
            'max_epochs' if by_epoch else 'max_iters': length,
            'val_interval': validate or length + 1,
        },
        **validation,
        optim_wrapper={'optimizer': {'type': 'Adam', 'lr': 0.1}},
        param_scheduler={'type': 'LinearLR', 'start_factor': 0.01, 'by_epoch': False, 'begin': 0, 'end': 20},
        default_hooks={
            'checkpoint': {
                'type': 'CheckpointHook',
                'by_epoch': by_epoch,
                'backend_args': {'backend': 'atomic'},
                **checkpoint,
            },
            'stop': {'type': 'StopOnSignalHook'},
        },
        custom_hooks=[{'type': 'EMAHook', 'momentum': 0.1, 'priority': 49}, *hooks],
        load_from=str(resume) if resume else None,
        resume=resume is not None,
        default_scope='mmdet',
        experiment_name=f'toy-{work_dir.name}',
        log_level='ERROR',
        randomness={'seed': 0},
    )
