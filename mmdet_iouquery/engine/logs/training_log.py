"""What all logs of a training have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.visualization import BaseVisBackend
from numpy.typing import NDArray


class TrainingLog(BaseVisBackend):
    """A back end of mmengine's visualizer with one place for all starts of a run, in which no step stands twice.

    A run that was killed has logged steps that its checkpoint does not know; resumed, it does them again. So each start
    says at which step the training begins (:meth:`begin`), and what was logged after it is taken back, in the way of
    each back end. mmengine's own back ends begin a new log with every start. Until then nothing is written: a test with
    the config of a training leaves no trace in its logs.

    Values have mmengine's names behind the part of the run that they are of: ``train/loss``, ``train/lr``,
    ``val/coco/bbox_mAP``. Steps are iterations, those of validations too, as ``LoggerHook(log_metric_by_epoch=False)``
    has them.

    Args:
        save_dir: folder of a single start, which mmengine names; not used.
    """

    folder = ''
    """Name of the folder in the work folder."""

    def __init__(self, save_dir: str | None = None) -> None:
        super().__init__(save_dir)
        self.config = Config()
        self._begun = False

    def begin(self, work_dir: Path, step: int) -> str:
        """Log from now on, in the training of this work folder, of which ``step`` iterations are done.

        Returns:
            How a person looks at the log.
        """
        folder = Path(work_dir) / self.folder
        folder.mkdir(parents=True, exist_ok=True)
        how = self._begin(folder, step)
        self._begun = True
        return how

    @abstractmethod
    def _begin(self, folder: Path, step: int) -> str:
        """Take back what was logged after ``step``; see :meth:`begin`."""

    @abstractmethod
    def _write(self, phase: str, values: Mapping[str, float], step: int) -> None:
        """Write numbers of a phase of the run ('train', 'val', or '' where that is not known)."""

    @abstractmethod
    def _write_image(self, name: str, image: NDArray[Any], step: int) -> None:
        """Write an image (H, W, 3), uint8, RGB."""

    def _end(self) -> None:
        """The training has ended as it should."""

    def _init_env(self) -> None:
        """What mmengine calls before the first value; there is nothing to do before :meth:`begin`."""

    @property
    def experiment(self) -> Any:
        """This log."""
        return self

    def add_config(self, config: Config, **_: Any) -> None:
        self.config = config

    def add_scalar(self, name: str, value: Any, step: int = 0, **_: Any) -> None:
        self.add_scalars({name: value}, step)

    def add_scalars(
        self, scalar_dict: Mapping[str, Any], step: int = 0, file_path: str | None = None, **_: Any
    ) -> None:
        """Log numbers of one step; anything else in ``scalar_dict`` is left out.

        Args:
            file_path: given by mmengine's ``LoggerHook``, which tells training and validation apart by its ``iter``.
        """
        if not self._begun:
            return
        phase = '' if file_path is None else 'train' if 'iter' in scalar_dict else 'val'
        plain = {key: value.item() if hasattr(value, 'item') else value for key, value in scalar_dict.items()}
        values = {
            key.removeprefix(f'{phase}/'): value
            for key, value in plain.items()
            if isinstance(value, (int, float)) and not (phase and key == 'iter')
        }
        if values:
            self._write(phase, values, step)

    def add_image(self, name: str, image: NDArray[Any], step: int = 0, **_: Any) -> None:
        if self._begun:
            self._write_image(name, image, step)

    def close(self) -> None:
        if self._begun:
            self._begun = False
            self._end()


def full_name(phase: str, name: str) -> str:
    """A value's name with the phase of the run before it."""
    return f'{phase}/{name}' if phase else name
