"""Weights & Biases."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmdet.registry import VISBACKENDS
from numpy.typing import NDArray

from .training_log import TrainingLog, full_name


@VISBACKENDS.register_module()
class WandbLog(TrainingLog):
    """A run of Weights & Biases for each start, all in one group; offline, unless WANDB_MODE says otherwise.

    It can neither take steps back nor go on with a run offline (their issue 4624), so each start has a run of its own,
    named by the step where it begins. Charts have the training's step as their axis: the library's own counts calls.
    """

    folder = 'wandb'

    def _begin(self, folder: Path, step: int) -> str:
        os.environ.setdefault('WANDB_ERROR_REPORTING', 'false')
        import wandb

        self._image = wandb.Image
        name = folder.resolve().parent.name
        mode = os.environ.get('WANDB_MODE') or 'offline'
        self._run = wandb.init(
            dir=str(folder.parent),
            mode=mode,
            project=os.environ.get('WANDB_PROJECT') or 'mmdet_iouquery',
            group=os.environ.get('WANDB_RUN_GROUP') or name,
            name=f'{name}, from step {step}' if step else name,
            config=self.config.to_dict(),
            settings=wandb.Settings(silent=True, console='off'),
        )
        self._run.define_metric('*', step_metric='step')
        return f'wandb sync {folder}/offline-run-*' if mode == 'offline' else f'Weights & Biases, {self._run.url}'

    def _write(self, phase: str, values: Mapping[str, float], step: int) -> None:
        self._run.log({'step': step, **{full_name(phase, name): value for name, value in values.items()}})

    def _write_image(self, name: str, image: NDArray[Any], step: int) -> None:
        self._run.log({'step': step, name: self._image(image)})

    def _end(self) -> None:
        self._run.finish()
