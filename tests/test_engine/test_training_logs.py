"""What ``--log`` writes, read back; after kills it is what an uninterrupted training would have logged."""

from __future__ import annotations

import csv
import importlib
import json
import math
import os
import shutil
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Optional
from urllib.parse import unquote, urlparse

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.runner import IterBasedTrainLoop
from mmengine.structures import InstanceData
from PIL import Image
from started_run import Started, ended, errors, run_train, small_config

from mmdet_iouquery import config_path
from mmdet_iouquery.engine import loggers
from mmdet_iouquery.engine.hooks import MissedValidationHook, TrainingLogHook
from mmdet_iouquery.engine.hooks.training_log_hook import spread
from mmdet_iouquery.engine.loggers import add_loggers
from mmdet_iouquery.engine.logs import CsvLog, MlflowLog, TensorboardLog, TrainingLog, WandbLog, mlflow_log
from mmdet_iouquery.errors import InputError

LOGS: dict[str, type[TrainingLog]] = {'csv': CsvLog, 'tensorboard': TensorboardLog, 'mlflow': MlflowLog}
MODULES = {'tensorboard': 'torch.utils.tensorboard', 'mlflow': 'mlflow.store.tracking.sqlalchemy_store'}
NEEDED = {'csv': 'csv', 'tensorboard': 'tensorboard', 'mlflow': 'mlflow'}
STEPS, EVERY = 12, 4
SETTINGS = f"""
train_cfg.update(max_iters={STEPS}, val_interval={EVERY})
default_hooks = dict(checkpoint=dict(interval={EVERY}), logger=dict(interval=2))
"""
Series = Mapping[str, list[tuple[int, float]]]
Stop = Optional[tuple[str, int]]
TIMES = ('time', 'memory')  # what differs from run to run


@pytest.fixture(params=LOGS)
def kind(request: pytest.FixtureRequest) -> str:
    pytest.importorskip(NEEDED[request.param])
    return request.param


@pytest.fixture(autouse=True)
def _nothing_at_exit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that a test leaves open was killed."""
    monkeypatch.setattr(mlflow_log, 'atexit', SimpleNamespace(register=lambda *_: None, unregister=lambda *_: None))


@pytest.fixture(scope='session')
def database(tmp_path_factory: pytest.TempPathFactory) -> Path | None:
    """An empty database of MLflow's, which takes seconds to make; None: MLflow is not installed."""
    if loggers.find_module('mlflow') is None:
        return None
    import mlflow

    path = tmp_path_factory.mktemp('empty') / 'mlflow.db'
    mlflow.MlflowClient(tracking_uri=f'sqlite:///{path}').search_experiments()
    return path


def new_work_dir(folder: Path, database: Path | None) -> Path:
    (folder / 'run' / 'mlflow').mkdir(parents=True)
    if database is not None:
        shutil.copy(database, folder / 'run' / 'mlflow')
    return folder / 'run'


@pytest.fixture
def work_dir(database: Path | None, tmp_path: Path) -> Path:
    return new_work_dir(tmp_path, database)


# --- reading back -----------------------------------------------------------------------------------------------------


def read_csv(work_dir: Path) -> tuple[Series, list[str]]:
    values: dict[str, list[tuple[int, float]]] = {}
    for path in (work_dir / 'csv').glob('*.csv'):
        for row in csv.DictReader(path.open()):
            for name, value in row.items():
                if name != 'step' and value:
                    key = name if path.stem == 'other' else f'{path.stem}/{name}'
                    values.setdefault(key, []).append((int(row['step']), float(value)))
    folder = work_dir / 'csv' / 'images'
    return values, sorted(str(path.relative_to(folder).with_suffix('')) for path in folder.glob('**/*.jpg'))


def read_tensorboard(work_dir: Path) -> tuple[Series, list[str]]:
    """By the reader that TensorBoard's own page uses without its fast back end."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(work_dir / 'tensorboard'), size_guidance={'scalars': 0, 'images': 0}).Reload()
    tags = events.Tags()
    images = [f'{tag}/{image.step:08d}' for tag in tags['images'] for image in events.Images(tag)]
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in tags['scalars']}, sorted(images)


def mlflow_runs(work_dir: Path) -> tuple[Any, list[Any]]:
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=f'sqlite:///{work_dir / "mlflow" / "mlflow.db"}')
    return client, client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])


def read_mlflow(work_dir: Path) -> tuple[Series, list[str]]:
    client, (run,) = mlflow_runs(work_dir)
    values = {
        key: sorted((metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, key))
        for key in run.data.metrics
    }
    files = Path(unquote(urlparse(run.info.artifact_uri).path)) / 'images'
    return values, sorted(str(path.relative_to(files).with_suffix('')) for path in files.glob('**/*.jpg'))


READ: dict[str, Callable[[Path], tuple[Series, list[str]]]] = {
    'csv': read_csv,
    'tensorboard': read_tensorboard,
    'mlflow': read_mlflow,
}


def rows(kind: str, work_dir: Path) -> dict[str, list[tuple[int, float]]]:
    return {name: values for name, values in READ[kind](work_dir)[0].items() if not name.endswith(TIMES)}


# --- one log alone ----------------------------------------------------------------------------------------------------


def begun(kind: str, work_dir: Path, step: int, **settings: Any) -> TrainingLog:
    log = LOGS[kind]()
    log.add_config(Config({'model': {'depth': 18}, 'train_cfg': {'max_iters': 9}, **settings}))
    log.begin(work_dir, step)
    return log


def train_step(log: TrainingLog, step: int, loss: float, **more: float) -> None:
    log.add_scalars({'lr': 0.5**step, 'loss': loss, 'iter': step, **more}, step, 'log.json')


def validate(log: TrainingLog, step: int, ap: float) -> None:
    log.add_image('detections/0_street', np.full((4, 6, 3), 10 * step, np.uint8), step)
    log.add_scalars({'coco/bbox_mAP': torch.tensor(ap), 'time': np.float64(0.25)}, step, 'log.json')


def test_values_come_back_under_their_names(kind: str, work_dir: Path) -> None:
    log = begun(kind, work_dir, 0)
    train_step(log, 2, 0.5)
    train_step(log, 4, 0.25, skipped_pictures=3)
    validate(log, 4, 0.75)
    log.add_scalar('mine/odd (name): é', 2, 4)
    log.close()
    logged, images = READ[kind](work_dir)
    own = 'mine/odd _name__ é' if kind == 'mlflow' else 'mine/odd (name): é'
    assert logged == {
        'train/lr': [(2, 0.25), (4, 0.0625)],
        'train/loss': [(2, 0.5), (4, 0.25)],
        'train/skipped_pictures': [(4, 3.0)],
        'val/coco/bbox_mAP': [(4, 0.75)],
        'val/time': [(4, 0.25)],
        own: [(4, 2.0)],
    }
    assert images == ['detections/0_street/00000004']


def test_steps_that_are_done_again_stand_once(kind: str, work_dir: Path) -> None:
    """Killed after step 8 and its validation, resumed from step 4; the second time the values are others."""
    log = begun(kind, work_dir, 0)
    for step in (2, 4, 6, 8):
        train_step(log, step, step / 16)
        if step % 4 == 0:
            validate(log, step, step / 32)
    log = begun(kind, work_dir, 4)
    for step in (6, 8, 10):
        train_step(log, step, step / 64)
    validate(log, 8, 0.5)
    log.close()
    logged, images = READ[kind](work_dir)
    assert logged['train/loss'] == [(2, 2 / 16), (4, 4 / 16), (6, 6 / 64), (8, 8 / 64), (10, 10 / 64)]
    assert logged['val/coco/bbox_mAP'] == [(4, 4 / 32), (8, 0.5)]
    assert images == ['detections/0_street/00000004', 'detections/0_street/00000008']


def test_a_validation_that_is_made_up_for_stands_once(kind: str, work_dir: Path) -> None:
    """Stopped between the log of a validation and the note of it; and one whose first log was taken back before."""
    log = begun(kind, work_dir, 0)
    for step in (4, 8):
        train_step(log, step, 0.5)
        validate(log, step, 0.25)
    log = begun(kind, work_dir, 8)
    validate(log, 8, 0.25)
    log = begun(kind, work_dir, 4)
    train_step(log, 8, 0.125)  # and killed before its validation
    log = begun(kind, work_dir, 8)
    validate(log, 8, 0.0625)
    log.close()
    logged, _ = READ[kind](work_dir)
    assert logged['train/loss'] == [(4, 0.5), (8, 0.125)]
    assert logged['val/coco/bbox_mAP'] == [(4, 0.25), (8, 0.0625)]
    assert logged['val/time'] == [(4, 0.25), (8, 0.25)]


def test_a_start_before_the_first_checkpoint_begins_anew(kind: str, work_dir: Path) -> None:
    train_step(begun(kind, work_dir, 0), 2, 0.5)
    log = begun(kind, work_dir, 0)
    train_step(log, 2, 0.25)
    log.close()
    assert READ[kind](work_dir)[0]['train/loss'] == [(2, 0.25)]


def test_nothing_is_written_before_a_training_begins(kind: str, tmp_path: Path) -> None:
    log = LOGS[kind](save_dir=str(tmp_path / 'vis_data'))
    log.add_config(Config({'a': 1}))
    train_step(log, 2, 0.5)
    validate(log, 2, 0.5)
    log.close()
    assert not [*tmp_path.iterdir()]


def test_a_row_that_was_torn_is_dropped_and_written_again(tmp_path: Path) -> None:
    log = begun('csv', tmp_path, 0)
    train_step(log, 2, 0.5)
    table = tmp_path / 'csv' / 'train.csv'
    with table.open('a') as file:
        file.write('4,0.0625,0.2')  # half of 0.25
    log = begun('csv', tmp_path, 4)
    train_step(log, 6, math.inf)
    assert table.read_text() == 'step,lr,loss\n2,0.25,0.5\n6,0.015625,inf\n'


def test_one_mlflow_run_tells_how_the_training_ended(work_dir: Path) -> None:
    pytest.importorskip('mlflow')
    log = begun('mlflow', work_dir, 0)
    train_step(log, 2, 0.5)
    (first,) = mlflow_runs(work_dir)[1]
    assert first.info.status == 'RUNNING' and first.info.run_name == work_dir.name
    assert first.data.params == {'model.depth': '18', 'train_cfg.max_iters': '9'}
    log._stopped(os.getpid())
    assert mlflow_runs(work_dir)[1][0].info.status == 'KILLED'
    log = begun('mlflow', work_dir, 2)  # stopped by a signal, with all its steps saved: nothing is to be taken back
    train_step(log, 4, 0.5)
    log.close()
    (second,) = mlflow_runs(work_dir)[1]
    assert (second.info.run_id, second.info.status) == (first.info.run_id, 'FINISHED')
    other = begun('mlflow', work_dir, 4, model={'depth': 34})  # --resume with other settings
    other.close()
    _, runs = mlflow_runs(work_dir)
    assert {run.info.run_id: run.data.params['model.depth'] for run in runs} == {
        first.info.run_id: '18',
        other._run_id: '34',
    }


def test_a_database_that_refuses_is_told_by_its_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip('mlflow')
    monkeypatch.setenv('MLFLOW_TRACKING_URI', 'nonsense://here')
    with pytest.raises(InputError, match=r'--log mlflow: nonsense://here refuses \(.*MLFLOW_TRACKING_URI'):
        begun('mlflow', tmp_path, 0)


def test_weights_and_biases_has_a_run_for_each_start(tmp_path: Path) -> None:
    pytest.importorskip('wandb')
    for step in (0, 2):
        log = WandbLog()
        log.add_config(Config({'model': {'depth': 18}}))
        assert 'offline' in log.begin(tmp_path, step)
        train_step(log, step + 2, 0.5)
        validate(log, step + 2, 0.25)
        assert log._run.group == tmp_path.name and log._run.summary['step'] == step + 2
        assert log._run.summary['train/loss'] == 0.5 and log._run.summary['val/coco/bbox_mAP'] == 0.25
        log.close()
    assert len([*(tmp_path / 'wandb').glob('offline-run-*/run-*.wandb')]) == 2
    assert len([*(tmp_path / 'wandb').glob('offline-run-*/files/media/images/detections/*.png')]) == 2


# --- a training -------------------------------------------------------------------------------------------------------


def run_logged(config: str, work_dir: str, names: str | None, stop: Stop = None) -> int:
    """``tools/train.py``, killed in some call of a step, or of noting a validation."""
    if stop is not None:
        owner: Any = {'run_iter': IterBasedTrainLoop, 'after_val_epoch': MissedValidationHook}[stop[0]]
        original, calls = getattr(owner, stop[0]), []

        def counted(*arguments: Any, **options: Any) -> Any:
            calls.append(1)
            if len(calls) == stop[1]:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*arguments, **options)

        setattr(owner, stop[0], counted)
    return run_train(config, '--work-dir', work_dir, *(['--log', names] if names else []))


def run_all(config: str, starts: list[tuple[str, Stop]]) -> int:
    """Trainings one after the other into these folders, in forks of a process that has imported what they log to."""
    names = [name for name, module in NEEDED.items() if loggers.find_module(module) is not None]
    for module in {NEEDED[name] for name in names} - {'csv'}:
        importlib.import_module(MODULES.get(module, module))
    for work_dir, stop in starts:
        child = os.fork()
        if not child:
            try:
                os._exit(run_logged(config, work_dir, ','.join(names), stop))
            finally:
                os._exit(1)
        signalled = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert signalled == (-signal.SIGKILL if stop else 0), (work_dir, stop)
    return 0


@pytest.fixture(scope='module')
def config(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(small_config(tmp_path_factory.mktemp('config'), SETTINGS))


@pytest.fixture(scope='module')
def trainings(config: str, database: Path | None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp('trainings')
    whole, killed = (new_work_dir(folder / name, database) for name in ('whole', 'killed'))
    stops: list[Stop] = [('run_iter', 7), ('after_val_epoch', 1), None]
    starts = [(str(whole), None), *((str(killed), stop) for stop in stops)]
    run = Started(folder / 'said', run_all, config, starts)
    assert run.status(seconds=480) == 0, run.output()[-3000:]
    return whole, killed


@pytest.fixture(scope='module')
def whole(trainings: tuple[Path, Path]) -> Path:
    """The work folder of a training that nothing stopped."""
    return trainings[0]


@pytest.fixture(scope='module')
def killed(trainings: tuple[Path, Path]) -> Path:
    """The same, killed after step 6 and right after the validation of step 8 was logged."""
    return trainings[1]


pytestmark = pytest.mark.skipif(os.name == 'nt', reason='kills processes')


def test_a_training_logs_curves_rates_and_selection_quality(whole: Path) -> None:
    """The tables are what mmengine's own log of the run holds, all else what the tables hold."""
    logged = rows('csv', whole)
    (path,) = whole.glob('*/vis_data/scalars.json')
    records = [json.loads(line) for line in path.open()]
    for key, split in (('loss', 'train'), ('lr', 'train'), ('grad_norm', 'train'), ('coco/bbox_mAP', 'val')):
        assert logged[f'{split}/{key}'] == [(record['step'], record[key]) for record in records if key in record]
    assert [step for step, _ in logged['train/loss']] == [*range(2, STEPS + 1, 2)]
    for name in ('coco/bbox_mAP', 'selection/prop_both', 'selection/calibration_error'):
        assert [step for step, _ in logged[f'val/{name}']] == [*range(EVERY, STEPS + 1, EVERY)]


def test_every_log_holds_the_same(kind: str, whole: Path) -> None:
    expected, actual = rows('csv', whole), rows(kind, whole)
    assert actual.keys() == expected.keys()
    for name, values in expected.items():
        assert [step for step, _ in actual[name]] == [step for step, _ in values], name
        if kind == 'tensorboard':  # which keeps single precision
            values = [(step, float(np.float32(value))) for step, value in values]
        assert actual[name] == values, name


def test_killed_twice_it_logs_what_an_uninterrupted_training_logs(kind: str, whole: Path, killed: Path) -> None:
    assert rows(kind, killed) == rows(kind, whole)
    assert READ[kind](killed)[1] == READ[kind](whole)[1]
    for name, values in READ[kind](killed)[0].items():  # times too
        steps = [step for step, _ in values]
        assert steps == sorted({*steps}), name


def test_each_validation_shows_the_same_images(kind: str, whole: Path) -> None:
    images = READ[kind](whole)[1]
    assert len(images) == 4 * STEPS // EVERY
    names = {step: [i.rpartition('/')[0] for i in images if i.endswith(f'{step:08d}')] for step in (4, 8, 12)}
    assert names[4] == names[8] == names[12] and len({*names[4]}) == 4


def test_logging_changes_nothing_of_the_training(config: str, whole: Path, tmp_path: Path) -> None:
    status, output = ended(tmp_path / 'said', run_logged, config, str(tmp_path / 'run'), None)
    assert status == 0, output[-3000:]
    ours, theirs = (torch.load(path / f'iter_{STEPS}.pth', weights_only=True) for path in (tmp_path / 'run', whole))
    for entry in ('state_dict', 'ema_state_dict'):
        assert all(torch.equal(tensor, ours[entry][key]) for key, tensor in theirs.get(entry, {}).items())
    assert json.loads((tmp_path / 'run' / 'settings.json').read_text()) == json.loads(
        (whole / 'settings.json').read_text()
    )


def test_a_finished_training_is_left_alone(config: str, killed: Path, tmp_path: Path) -> None:
    """Also with other logs than before: they are no setting of the run."""
    before = {path: path.stat().st_mtime_ns for path in killed.rglob('*') if path.is_file() and path.name != '.lock'}
    status, output = ended(tmp_path / 'said', run_logged, config, str(killed), 'csv')
    assert status == 0 and 'this training is finished' in output, output[-3000:]
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_a_restart_sets_logs_aside(tmp_path: Path) -> None:
    from mmdet_iouquery.engine.work_dir import set_aside

    for name in ('csv', 'tensorboard', 'mlflow', 'wandb', 'my_csv'):
        (tmp_path / name).mkdir()
    target = set_aside(tmp_path)
    assert target is not None
    assert {path.name for path in target.iterdir()} == {'csv', 'tensorboard', 'mlflow', 'wandb'}
    assert (tmp_path / 'my_csv').is_dir()


@pytest.mark.parametrize(
    ('names', 'message'),
    [
        ('tensorbord', '--log tensorbord: there is no such log; did you mean tensorboard?; name csv, mlflow,'),
        ('csv,', "--log '': there is no such log"),
        ('csv,wandb', "--log wandb needs wandb: python -m pip install wandb, or install this package as 'mmdet-iouq"),
        ('mlflow', '--log mlflow needs mlflow and sqlalchemy and alembic: '),
    ],
)
def test_what_cannot_be_logged_to_is_said_first(names: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loggers, 'find_module', lambda name: None)
    monkeypatch.delenv('MLFLOW_TRACKING_URI', raising=False)
    cfg = Config({'model': {}})
    with pytest.raises(InputError) as caught:
        add_loggers(cfg, names.split(','))
    assert str(caught.value).startswith(message)
    assert cfg.to_dict() == {'model': {}}


def test_a_mistyped_log_ends_the_command_with_status_2(config: str, tmp_path: Path) -> None:
    status, text = ended(tmp_path / 'said', run_logged, config, str(tmp_path / 'run'), 'cvs')
    assert status == 2 and errors(text)[0].startswith('error: --log cvs: there is no such log; did you mean csv?')


def test_a_config_gets_its_loggers_once() -> None:
    cfg = Config.fromfile(config_path('rtdetr/rtdetr_r18vd_8xb2-72e_coco.py'))
    add_loggers(cfg, ['csv'])
    once = cfg.to_dict()
    add_loggers(cfg, ['csv', 'csv'])
    assert cfg.to_dict() == once
    assert [vis_backend.type for vis_backend in cfg.visualizer.vis_backends] == ['LocalVisBackend', 'CsvLog']
    assert [metric.type for metric in cfg.val_evaluator][-1] == 'QuerySelectionMetric'
    assert cfg.model.test_cfg.keep_selected is True and cfg.default_hooks.logger.log_metric_by_epoch is False


@pytest.mark.parametrize(
    ('config', 'changes', 'reason'),
    [
        ('rtdetr/rtdetr_r18vd_8xb2-72e_coco.py', {}, None),
        ('dino/dino-4scale_r50_iou-aware-selector_8xb2-12e_coco.py', {}, None),
        (
            'dino/dino-4scale_r50_dab-decoder_8xb2-12e_coco.py',  # with the parent's own selection
            {},
            'the model does not select queries among encoder tokens',
        ),
        (
            'rtdetr/rtdetr_r18vd_8xb2-72e_coco.py',
            {'model.bbox_head.query_selector': {'type': 'LearnedAnchors'}},
            'the model does not select queries among encoder tokens',
        ),
        (
            'rtdetr/rtdetr_r18vd_8xb2-72e_coco.py',
            {'val_dataloader.dataset.pipeline': [{'type': 'LoadAnnotations'}, {'type': 'Resize'}]},
            'val_dataloader has no LoadAnnotations after Resize',
        ),
        (
            'rtdetr/rtdetr_r18vd_8xb2-72e_coco.py',
            {'val_evaluator': {'type': 'Evaluator', 'metrics': []}},
            "val_evaluator names an evaluator; add dict(type='QuerySelectionMetric') to its metrics",
        ),
    ],
)
def test_selection_quality_is_logged_where_there_is_one(
    config: str, changes: dict, reason: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    cfg = Config.fromfile(config_path(config))
    for key, value in changes.items():
        *parents, name = key.split('.')
        node = cfg
        for parent in parents:
            node = node[parent]
        node[name] = value
    add_loggers(cfg, ['csv'])
    assert capsys.readouterr().out == (f'note: --log has no selection quality to log: {reason}\n' if reason else '')
    evaluators = cfg.val_evaluator if isinstance(cfg.val_evaluator, list) else [cfg.val_evaluator]
    assert ('QuerySelectionMetric' in [evaluator.type for evaluator in evaluators]) is (reason is None)
    assert bool((cfg.model.test_cfg or {}).get('keep_selected')) is (reason is None)


# --- sample detections ------------------------------------------------------------------------------------------------


class Kept(TrainingLog):
    """A log that keeps what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.images: dict[tuple[str, int], np.ndarray] = {}

    def _begin(self, folder: Path, step: int) -> str:
        return 'look'

    def _write(self, prefix: str, values: Mapping[str, float], step: int) -> None:
        raise NotImplementedError

    def _write_image(self, name: str, image: np.ndarray, step: int) -> None:
        self.images[name, step] = image


def test_samples_show_ground_truth_and_what_scores_above_the_threshold(tmp_path: Path) -> None:
    Image.new('RGB', (40, 20), (0, 0, 0)).save(tmp_path / 'a street.png')

    def instances(box: list[float], score: float | None = None) -> InstanceData:
        objects = InstanceData(bboxes=torch.tensor([box]), labels=torch.tensor([0]))
        if score is not None:
            objects.scores = torch.tensor([score])
        return objects

    samples = []
    for score in (0.2, 0.9):
        sample = DetDataSample(metainfo={'img_path': str(tmp_path / 'a street.png'), 'ori_shape': (20, 40)})
        sample.gt_instances = instances([20.0, 5.0, 30.0, 15.0])
        sample.pred_instances = instances([5.0, 5.0, 15.0, 15.0], score)
        samples.append(sample)
    log = Kept()
    loader = SimpleNamespace(sampler=range(3), dataset=SimpleNamespace(metainfo={'classes': ('car',)}))
    runner: Any = SimpleNamespace(
        rank=0,
        iter=7,
        work_dir=str(tmp_path),
        val_loop=object(),
        val_dataloader=loader,
        visualizer=SimpleNamespace(get_backend={'kept': log}.__getitem__),
        logger=SimpleNamespace(info=lambda text: None),
    )
    hook = TrainingLogHook(['kept'], num_images=2, image_size=400, score_thr=0.5)
    hook.before_val_epoch(runner)
    hook.after_val_iter(runner, 0, None, samples)
    assert not log.images, 'a validation of its own is no training'
    hook.before_train(runner)
    state = torch.get_rng_state(), np.random.get_state()[1].tolist()
    hook.before_val_epoch(runner)
    hook.after_val_iter(runner, 0, None, samples[:1])
    hook.after_val_iter(runner, 1, None, [samples[1], samples[1]])
    assert torch.equal(torch.get_rng_state(), state[0]) and np.random.get_state()[1].tolist() == state[1]
    assert {*log.images} == {('detections/0_a_street', 7), ('detections/2_a_street', 7)}
    low, high = log.images['detections/0_a_street', 7], log.images['detections/2_a_street', 7]
    assert low.shape == high.shape == (200, 800, 3) and low.dtype == np.uint8
    truth, nothing, detection = low[:, :400], low[:, 400:], high[:, 400:]
    assert np.array_equal(truth, high[:, :400]) and not nothing.any()
    for drawn, left in ((truth, 200), (detection, 50)):
        columns = np.flatnonzero(drawn[100:140].any(axis=(0, 2)))  # below the name of the class
        assert abs(columns.min() - left) <= 4 and abs(columns.max() - (left + 100)) <= 4


def test_samples_are_spread_evenly() -> None:
    assert spread(4, 100) == {0, 33, 66, 99}
    assert spread(1, 5) == {0} and spread(0, 5) == set() and spread(7, 3) == {0, 1, 2} and spread(4, 0) == set()
