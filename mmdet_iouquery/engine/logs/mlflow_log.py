"""MLflow."""

from __future__ import annotations

import atexit
import logging
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmdet.registry import VISBACKENDS
from mmengine.logging import print_log
from numpy.typing import NDArray

from ...config_options import flattened
from ...datasets.coco.json_file import read_json
from ...errors import InputError
from ...file_io import write_json
from .training_log import TrainingLog, full_name

URI = 'MLFLOW_TRACKING_URI'
"""Environment variable of MLflow's that names a server or a database; without it, a database in the work folder."""
_EXPERIMENT = 'MLFLOW_EXPERIMENT_NAME'
_SECTIONS = ('model', 'train_dataloader', 'optim_wrapper', 'param_scheduler', 'train_cfg', 'val_cfg', 'randomness')
"""Entries of a config that become parameters; all of it is the artifact ``config.py``."""
_LONGEST = 250  # letters of a name or value that every MLflow takes
_METRICS, _PARAMS = 1000, 100  # that one call takes
_IMAGES = 'images'


@VISBACKENDS.register_module()
class MlflowLog(TrainingLog):
    """One MLflow run for all starts; images are its artifacts ``images/NAME/STEP.jpg``.

    MLflow takes nothing back. So where the run has logged steps that are to be done again, or has other parameters, a
    new MLflow run takes its place: a copy of what was logged before. Of equal parameters, the old one is deleted as
    MLflow deletes, into its trash.

    A server that fails in mid-training costs the values of that moment and a warning, not the training.
    """

    folder = 'mlflow'

    def _begin(self, folder: Path, step: int) -> str:
        os.environ.setdefault('MLFLOW_DISABLE_TELEMETRY', 'true')
        import mlflow

        self._error: type[Exception] = mlflow.MlflowException
        local = f'sqlite:///{(folder / "mlflow.db").resolve().as_posix()}'
        self._uri = uri = os.environ.get(URI) or local
        try:
            self._client = mlflow.MlflowClient(tracking_uri=uri)
            self._run_id, self._logged = self._go_on(folder, step)
            self._client.log_text(self._run_id, self.config.pretty_text, 'config.py')
        except self._error as error:
            raise InputError(f'--log mlflow: {uri} refuses ({error}); check {URI} and {_EXPERIMENT}') from error
        self._step = step
        atexit.register(self._stopped, os.getpid())
        return f'mlflow ui --backend-store-uri {uri}' if uri == local else f'MLflow at {uri}, run {self._run_id}'

    def _go_on(self, folder: Path, step: int) -> tuple[str, set[str]]:
        """Id of the run to log to, and names of the metrics that it has at ``step``."""
        note, params = folder / 'run.json', self._params()
        before = self._noted(note)
        points = self._points(before)
        kept = [point for point in points if point.step <= step]
        if before is not None and len(kept) == len(points) and before.data.params == params:
            run_id = before.info.run_id
            self._client.update_run(run_id, status='RUNNING')
        else:
            run_id = self._new_run(folder, params)
            self._log_metrics(run_id, kept)
            if before is not None:
                self._copy_images(before.info.run_id, run_id, step)
            write_json(note, {'uri': self._uri, 'run_id': run_id})
            if before is not None and before.data.params == params:
                self._client.delete_run(before.info.run_id)
        return run_id, {point.key for point in kept if point.step == step}

    def _noted(self, note: Path) -> Any:
        """The run of the earlier starts; None: there is none, or it is gone."""
        noted = read_json(note) if note.is_file() else {}
        if noted.get('uri') != self._uri:
            return None
        try:
            run = self._client.get_run(noted['run_id'])
        except self._error:
            return None
        return run if run.info.lifecycle_stage == 'active' else None

    def _points(self, run: Any) -> list[Any]:
        if run is None:
            return []
        return [point for name in run.data.metrics for point in self._client.get_metric_history(run.info.run_id, name)]

    def _new_run(self, folder: Path, params: Mapping[str, str]) -> str:
        from mlflow.entities import Param

        name = os.environ.get(_EXPERIMENT) or 'mmdet_iouquery'
        experiment = self._client.get_experiment_by_name(name)
        if experiment is None:
            files = None if os.environ.get(URI) else (folder / 'artifacts').resolve().as_uri()
            experiment_id = self._client.create_experiment(name, artifact_location=files)
        else:
            experiment_id = experiment.experiment_id
        run_id: str = self._client.create_run(experiment_id, run_name=folder.resolve().parent.name).info.run_id
        for batch in _batches([Param(key, value) for key, value in params.items()], _PARAMS):
            self._client.log_batch(run_id, params=batch)
        return run_id

    def _params(self) -> dict[str, str]:
        whole = self.config.to_dict()
        sections = {key: whole[key] for key in _SECTIONS if whole.get(key) is not None}
        settings = flattened(sections) if sections else {}
        return {_allowed(key): str(value)[:_LONGEST] for key, value in settings.items()}

    def _copy_images(self, source: str, target: str, step: int) -> None:
        """Those of the steps up to ``step``."""
        from mlflow.artifacts import download_artifacts

        if not any(entry.path == _IMAGES for entry in self._client.list_artifacts(source)):
            return
        with tempfile.TemporaryDirectory() as folder:
            target_folder = dict(dst_path=folder, tracking_uri=self._uri)
            images = Path(download_artifacts(run_id=source, artifact_path=_IMAGES, **target_folder))
            for path in images.glob('**/*.jpg'):
                if int(path.stem) > step:
                    path.unlink()
            self._client.log_artifacts(target, str(images), _IMAGES)

    def _log_metrics(self, run_id: str, points: Sequence[Any]) -> None:
        for batch in _batches(points, _METRICS):
            self._client.log_batch(run_id, metrics=batch)

    def _write(self, phase: str, values: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        names = {_allowed(full_name(phase, name)): float(value) for name, value in values.items()}
        logged = self._logged if step == self._step else ()
        time_ms = int(1000 * time.time())
        points = [Metric(name, value, time_ms, step) for name, value in names.items() if name not in logged]
        self._try(self._log_metrics, self._run_id, points)

    def _write_image(self, name: str, image: NDArray[Any], step: int) -> None:
        self._try(self._client.log_image, self._run_id, image, f'{_IMAGES}/{name}/{step:08d}.jpg')

    def _try(self, call: Callable[..., Any], *arguments: Any) -> None:
        try:
            call(*arguments)
        except self._error as error:
            print_log(f'MLflow refuses, and the training goes on without: {error}', 'current', logging.WARNING)

    def _end(self) -> None:
        atexit.unregister(self._stopped)
        self._try(self._client.set_terminated, self._run_id, 'FINISHED')

    def _stopped(self, pid: int) -> None:
        """The process ends, and the training has not."""
        if os.getpid() == pid:
            self._try(self._client.set_terminated, self._run_id, 'KILLED')


def _batches(entries: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (entries[first : first + size] for first in range(0, len(entries), size))


def _allowed(name: str) -> str:
    """A name of a metric or parameter as every MLflow takes it."""
    return re.sub(r'[^\w.\- /]', '_', name)[:_LONGEST]
