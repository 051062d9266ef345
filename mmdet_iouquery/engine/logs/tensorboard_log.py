"""TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmdet.registry import VISBACKENDS
from numpy.typing import NDArray

from .training_log import TrainingLog, full_name


@VISBACKENDS.register_module()
class TensorboardLog(TrainingLog):
    """Event files of one TensorBoard run, ``tensorboard``; each start adds one.

    It begins with a note that all events after the step where the training goes on are void, by which TensorBoard and
    readers of its files leave them out (``purge_step`` of torch's ``SummaryWriter``). Every step is on the disk before
    the checkpoint that knows of it.
    """

    folder = 'tensorboard'

    def _begin(self, folder: Path, step: int) -> str:
        from torch.utils.tensorboard import SummaryWriter

        self._step, self._logged = step, _tags_at(folder, step)
        self._writer = SummaryWriter(str(folder), purge_step=step + 1)
        if 'config/text_summary' not in self._logged:  # so torch calls it
            self._writer.add_text('config', f'```python\n{self.config.pretty_text}\n```', step)
        self._writer.flush()
        return f'tensorboard --logdir {folder}'

    def _write(self, phase: str, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            tag = full_name(phase, name)
            if not self._is_logged(tag, step):
                self._writer.add_scalar(tag, value, step)
        self._writer.flush()

    def _write_image(self, name: str, image: NDArray[Any], step: int) -> None:
        if not self._is_logged(name, step):
            self._writer.add_image(name, image, step, dataformats='HWC')
            self._writer.flush()

    def _is_logged(self, tag: str, step: int) -> bool:
        """Of the step where the training goes on, which may have been validated before it was stopped."""
        return step == self._step and tag in self._logged

    def _end(self) -> None:
        self._writer.close()


def _tags_at(folder: Path, step: int) -> set[str]:
    """Tags that have a valid event at a step, in the event files of a folder."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
    from tensorboard.compat.proto.event_pb2 import SessionLog

    tags: set[str] = set()
    for path in sorted(folder.glob('events.out.tfevents.*')):
        for event in EventFileLoader(str(path)).Load():
            if event.HasField('session_log') and event.session_log.status == SessionLog.START and event.step <= step:
                tags.clear()
            elif event.step == step:
                tags.update(value.tag for value in event.summary.value)
    return tags
