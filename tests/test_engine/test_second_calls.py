"""Every command that leaves files, called again with the same arguments: after a stop, and when it is done."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from form_sets import BOX_LINE, yolo_set
from mmengine.config import Config
from mmengine.runner import IterBasedTrainLoop, TestLoop, ValLoop
from PIL import Image
from runs import SMALL_MODEL
from started_run import Started, ended, errors, run_test, run_train, small_config

from mmdet_iouquery import read_data
from mmdet_iouquery.apps.analyze import command as analyze
from mmdet_iouquery.apps.calibrate import command as calibrate
from mmdet_iouquery.apps.quickstart import command as quickstart
from mmdet_iouquery.apps.quickstart.digits import build_digits
from mmdet_iouquery.checkpoints.convert_file import convert_file
from mmdet_iouquery.engine import launch, work_dir
from mmdet_iouquery.engine.start_or_resume import begin
from mmdet_iouquery.engine.work_dir import claimed
from mmdet_iouquery.errors import InputError
from mmdet_iouquery.main import main

pytestmark = pytest.mark.skipif(os.name == 'nt', reason='kills processes')
TOOLS = Path(__file__).parents[2] / 'tools'
STEPS = 8


def killed_in(owner: Any, name: str, call: int = 1) -> None:
    """Have this process killed by a call of ``owner.name``, from the first on."""
    original, calls = getattr(owner, name), []

    def counted(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments, **options)

    setattr(owner, name, counted)


def killed_in_writing(name: str) -> None:
    """Have this process killed when half of a text file of that name is written."""
    original = Path.write_text

    def half(self: Path, text: str, *arguments: Any, **options: Any) -> int:
        if name in self.name:
            original(self, text[: len(text) // 2], *arguments, **options)
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, text, *arguments, **options)

    Path.write_text = half  # type: ignore[method-assign, assignment]


def contents(folder: Path) -> dict[str, bytes]:
    """All files, but for the claim that a killed process leaves."""
    files = (path for path in folder.rglob('*') if path.is_file() and not path.name.endswith('.lock'))
    return {str(path): path.read_bytes() for path in files}


def grown(root: Path, count: int) -> Path:
    return yolo_set(root, {f'{number}.jpg': BOX_LINE for number in range(count)})


def names_in(path: Path) -> set[str]:
    return {image['file_name'] for image in json.loads(path.read_text())['images']}


# --- make quickstart --------------------------------------------------------------------------------------------------

# in the order in which they are reached; validations come after steps 4 and 8, checkpoints after every second step
STOPS: dict[str, Callable[[], None]] = {
    'the note of the settings': lambda: killed_in_writing(quickstart.NOTE_NAME),
    'the config': lambda: killed_in_writing('config.py'),
    'step 4': lambda: killed_in(IterBasedTrainLoop, 'run_iter', 4),
    'the first validation': lambda: killed_in(ValLoop, 'run_iter'),
    'the last validation': lambda: killed_in(ValLoop, 'run', 2),
    'the evaluation': lambda: killed_in(TestLoop, 'run_iter'),
    'the results': lambda: killed_in_writing('detections.metrics.json'),
    'the drawing': lambda: killed_in(quickstart, 'contact_sheet'),
    'the analysis': lambda: killed_in(analyze, 'page'),
    'the page': lambda: killed_in_writing('index.html'),
}


def run_quickstart(work_dir: str, data: str, stop: str | None = None, *more: str) -> int:
    """``tools/quickstart.py`` in this process, with a small model and short looks; killed at one of :data:`STOPS`."""
    call = {'train': launch.train, 'test': launch.test, 'analyze_queries': analyze.analyze}
    original = quickstart.config_text

    def run_child(program: Path, *arguments: object) -> int:
        return launch.run_tool(lambda: call[program.stem]([str(argument) for argument in arguments]))

    quickstart.run_child = run_child
    quickstart.config_text = lambda *arguments, **options: original(*arguments, **options) + SMALL_MODEL
    quickstart.NUM_IMAGES_DRAWN = quickstart.NUM_IMAGES_ANALYZED = 2
    analyze.sections_of = lambda *_: []  # no figures, which take most of the time
    if stop is not None:
        STOPS[stop]()
    settings = {'--data': data, '--work-dir': work_dir, '--image-size': '64', '--iters': str(STEPS)}
    arguments = [*(word for pair in settings.items() for word in pair), *more]
    return launch.run_tool(lambda: quickstart.quickstart(TOOLS, arguments))


def validations(work_dir: Path) -> list[int]:
    """Steps of the validations that ended, in the logs of all starts."""
    lines = [line for log in sorted(work_dir.glob('*/vis_data/scalars.json')) for line in log.read_text().splitlines()]
    return [json.loads(line)['step'] for line in lines if 'bbox_mAP"' in line]


@pytest.fixture(scope='module')
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp('data') / 'digits'
    return build_digits(root, num_train=8, num_val=4, image_size=96, progress=False)


@pytest.fixture(scope='module')
def stopped_everywhere(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The work folder of a quickstart that was killed ten times, and called again each time."""
    folder = tmp_path_factory.mktemp('stopped')
    work_dir = folder / 'my run'
    for number, stop in enumerate(STOPS):
        status, output = ended(folder / f'log_{number}', run_quickstart, str(work_dir), str(data), stop)
        assert status == -signal.SIGKILL, f'{stop}: {output[-3000:]}'
    status, output = ended(folder / 'log', run_quickstart, str(work_dir), str(data))
    assert status == 0, output[-3000:]
    return work_dir


def test_a_quickstart_stopped_everywhere_ends_as_one_that_was_not(
    stopped_everywhere: Path, data: Path, tmp_path: Path
) -> None:
    status, output = ended(tmp_path / 'log', run_quickstart, str(tmp_path / 'run'), str(data))
    assert status == 0, output[-3000:]
    for name in ('detections.bbox.json', 'detections.metrics.json', 'queries/selection.json'):
        ours, theirs = (json.loads((folder / name).read_text()) for folder in (stopped_everywhere, tmp_path / 'run'))
        if name.endswith('selection.json'):  # it names checkpoints by their paths
            ours, theirs = ([{**row, 'model': '', 'checkpoint': ''} for row in rows] for rows in (ours, theirs))
        assert ours == theirs, name
    ours, theirs = (
        torch.load(folder / f'iter_{STEPS}.pth', weights_only=True)['state_dict']
        for folder in (stopped_everywhere, tmp_path / 'run')
    )
    assert all(torch.equal(tensor, ours[key]) for key, tensor in theirs.items())
    assert validations(stopped_everywhere) == validations(tmp_path / 'run') == [STEPS // 2, STEPS]
    with Image.open(stopped_everywhere / 'pictures.png') as image:
        image.load()
    assert '</html>' in (stopped_everywhere / 'queries' / 'index.html').read_text(encoding='utf-8')


def test_a_finished_quickstart_says_so_and_does_nothing(stopped_everywhere: Path, data: Path, tmp_path: Path) -> None:
    before = {
        path: path.stat().st_mtime_ns for path in stopped_everywhere.rglob('*') if path.suffix in ('.pth', '.png')
    }
    status, output = ended(tmp_path / 'log', run_quickstart, str(stopped_everywhere), str(data))
    assert status == 0 and 'finished before' in output and f'iter_{STEPS}.pth' in output and 'COCO AP' in output
    assert before == {path: path.stat().st_mtime_ns for path in before}


@pytest.mark.parametrize(
    ('more', 'named'),
    [
        (('--iters', '12'), f'other settings (--iters: {STEPS} there, 12 asked for now)'),
        (('--image-size', '96', '--seed', '3'), '--image-size: 64 there, 96 asked for now; --seed: 0 there, 3 asked'),
    ],
)
def test_a_quickstart_of_other_settings_is_refused(
    more: tuple[str, ...], named: str, stopped_everywhere: Path, data: Path, tmp_path: Path
) -> None:
    status, output = ended(tmp_path / 'log', run_quickstart, str(stopped_everywhere), str(data), None, *more)
    (error,) = errors(output)
    assert status == 2 and named in error and '--restart' in error and 'WORK_DIR=' in error


def test_changed_annotations_and_an_edited_config_are_refused(
    stopped_everywhere: Path, data: Path, tmp_path: Path
) -> None:
    annotations, config = data / 'annotations' / 'val.json', stopped_everywhere / 'config.py'
    seed = 'randomness.seed: 0 as written, 7 now'
    for path, edit, named in (
        (annotations, ('1', '1 '), 'other annotations'),
        (config, ('R18', 'R-18'), 'was edited (its text, but no setting)'),
        (config, ('seed=0', 'seed=7'), f'was edited ({seed})'),
    ):
        before = path.read_text(encoding='utf-8')
        assert edit[0] in before
        path.write_text(before.replace(*edit, 1), encoding='utf-8')
        try:
            status, output = ended(tmp_path / 'log', run_quickstart, str(stopped_everywhere), str(data))
        finally:
            path.write_text(before, encoding='utf-8')
        (error,) = errors(output)
        assert status == 2 and named in error and path.name in error


def test_a_quickstart_on_data_that_grew_is_refused_before_they_are_converted(tmp_path: Path) -> None:
    root, work_dir = tmp_path / 'set', tmp_path / 'run'
    grown(root, 6)
    status, output = ended(tmp_path / 'log', run_quickstart, str(work_dir), str(root), 'step 4')
    assert status == -signal.SIGKILL, output[-3000:]
    grown(root, 9)
    before = contents(work_dir)
    for _ in range(2):
        status, output = ended(tmp_path / 'log', run_quickstart, str(work_dir), str(root))
        (error,) = errors(output)
        assert status == 2 and 'other annotations' in error and contents(work_dir) == before


def test_data_that_were_corrected_as_told_are_taken(data: Path, tmp_path: Path) -> None:
    """Nothing has been trained yet, so there is nothing that other settings would mix with."""
    own, work_dir = shutil.copytree(data, tmp_path / 'own'), tmp_path / 'run'
    annotations = own / 'annotations' / 'train.json'
    right = annotations.read_text(encoding='utf-8')
    annotations.write_text(right.replace('"iscrowd":0', '"iscrowd":1'), encoding='utf-8')
    status, output = ended(tmp_path / 'log', run_quickstart, str(work_dir), str(own))
    assert status == 2 and 'write iscrowd=0' in output
    annotations.write_text(right, encoding='utf-8')
    status, output = ended(tmp_path / 'log', run_quickstart, str(work_dir), str(own), 'step 4', '--seed', '1')
    assert status == -signal.SIGKILL, output[-3000:]
    assert list(work_dir.glob('iter_*.pth')) and 'seed=1' in (work_dir / 'config.py').read_text()


def test_restart_sets_the_run_aside_and_keeps_what_is_not_its_own(data: Path, tmp_path: Path) -> None:
    work_dir = tmp_path / 'run'
    status, output = ended(tmp_path / 'log', run_quickstart, str(work_dir), str(data), 'the first validation')
    (work_dir / 'notes.txt').write_text('mine')
    before = {path.name for path in work_dir.iterdir() if not path.name.startswith('.')} - {'notes.txt'}
    assert status == -signal.SIGKILL and {'config.py', 'iter_4.pth', 'quickstart.json', 'settings.json'} <= before, (
        output
    )
    arguments = (str(work_dir), str(data), 'the config', '--restart', '--seed', '1')
    assert ended(tmp_path / 'log', run_quickstart, *arguments)[0] == -signal.SIGKILL
    (aside,) = work_dir.glob('before-*')
    assert {path.name for path in aside.iterdir()} == before
    assert (work_dir / 'notes.txt').read_text() == 'mine' and not list(work_dir.glob('*.pth'))


# --- tools/train.py, tools/test.py ------------------------------------------------------------------------------------


def run_killed(module: str, name: str, call: int, *arguments: object) -> int:
    killed_in({'train': IterBasedTrainLoop, 'val': ValLoop, 'test': TestLoop}[module], name, call)
    return run_train(*arguments)


def run_test_killed(*arguments: object) -> int:
    killed_in(TestLoop, 'run_iter')
    return run_test(*arguments)


@pytest.fixture(scope='module')
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    more = f"train_cfg.update(max_iters={STEPS}, val_interval=4)\ndefault_hooks['checkpoint'].update(interval=2)\n"
    return small_config(tmp_path_factory.mktemp('config'), more)


@pytest.fixture(scope='module')
def trained(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The work folder of a training that was killed in step 6 and in the last validation, and is done."""
    work_dir = tmp_path_factory.mktemp('trained') / 'run'
    log = work_dir.with_name('log')
    for module, name, call in (('train', 'run_iter', 6), ('val', 'run', 1)):
        assert ended(log, run_killed, module, name, call, config, '--work-dir', work_dir)[0] == -signal.SIGKILL
    assert (work_dir / f'iter_{STEPS}.pth').is_file()
    status, output = ended(log, run_train, config, '--work-dir', work_dir)
    assert status == 0 and f'resuming from {work_dir / f"iter_{STEPS}.pth"}' in output, output[-3000:]
    return work_dir


def test_a_training_called_again_goes_on_and_ends_as_one_that_was_not_stopped(
    trained: Path, config: Path, tmp_path: Path
) -> None:
    assert ended(tmp_path / 'log', run_train, config, '--work-dir', tmp_path / 'run')[0] == 0
    ours, theirs = (
        torch.load(folder / f'iter_{STEPS}.pth', weights_only=True) for folder in (trained, tmp_path / 'run')
    )
    assert all(torch.equal(tensor, ours['state_dict'][key]) for key, tensor in theirs['state_dict'].items())
    assert validations(trained) == validations(tmp_path / 'run') == [4, STEPS]


def test_a_finished_training_says_so(trained: Path, config: Path, tmp_path: Path) -> None:
    starts = sorted(trained.glob('2*'))
    for more in ((), ('--resume',)):
        status, output = ended(tmp_path / 'log', run_train, config, '--work-dir', trained, *more)
        assert status == 0 and 'this training is finished' in output and str(trained / f'iter_{STEPS}.pth') in output
    assert sorted(trained.glob('2*')) == starts  # not even a log was begun


def test_a_training_of_other_settings_is_refused_unless_resumed(trained: Path, config: Path, tmp_path: Path) -> None:
    longer = ('--cfg-options', f'train_cfg.max_iters={STEPS + 2}')
    status, output = ended(tmp_path / 'log', run_train, config, '--work-dir', trained, *longer)
    (error,) = errors(output)
    assert status == 2 and f'(train_cfg.max_iters: {STEPS} there, {STEPS + 2} asked for now)' in error
    assert '--resume' in error and '--restart' in error and not (trained / f'iter_{STEPS + 2}.pth').exists()

    copy = tmp_path / 'copy'
    copy.mkdir()
    for name in (f'iter_{STEPS}.pth', 'settings.json', 'last_validation'):
        (copy / name).write_bytes((trained / name).read_bytes())
    status, output = ended(tmp_path / 'log', run_train, config, '--work-dir', copy, '--resume', *longer)
    assert status == 0 and f'going on with other settings than before: train_cfg.max_iters: {STEPS} there' in output
    assert (copy / f'iter_{STEPS + 2}.pth').is_file() and validations(copy) == [STEPS + 2]
    status, output = ended(tmp_path / 'log', run_train, config, '--work-dir', copy, *longer)
    assert status == 0 and 'this training is finished' in output

    (copy / 'settings.json').unlink()
    status, output = ended(tmp_path / 'log', run_train, config, '--work-dir', copy, *longer)
    (error,) = errors(output)
    assert status == 2 and 'whose settings are not known' in error and '--restart' in error


# --- iouquery train --data --------------------------------------------------------------------------------------------


def run_fitted(stop: bool, *arguments: object) -> int:
    """``iouquery train``; killed in step 4."""
    if stop:
        killed_in(IterBasedTrainLoop, 'run_iter', 4)
    return main(['train', *map(str, arguments)])


def test_a_training_on_data_that_grew_is_refused(config: Path, tmp_path: Path) -> None:
    """Stopped or finished, and before anything is written; the split stays where it is begun anew."""
    root, work_dir, out, log = tmp_path / 'set', tmp_path / 'run', tmp_path / 'set-coco', tmp_path / 'log'
    grown(root, 6)
    asked = (config, '--data', root, '--weights', 'none', '--batch', '2', '--work-dir', work_dir)
    assert ended(log, run_fitted, True, *asked)[0] == -signal.SIGKILL and (work_dir / 'iter_2.pth').is_file()
    split = [names_in(out / name) for name in ('train.json', 'val.json')]
    for finished in (False, True):
        grown(root, 9)
        before = {**contents(work_dir), **contents(out)}
        for _ in range(2):
            status, output = ended(log, run_fitted, False, *asked)
            (error,) = errors(output)
            assert status == 2 and f'{work_dir} holds a run on {root} as it was before it changed' in error
            assert '(9 images now, 6 then)' in error and '--restart' in error and '--work-dir' in error
            assert {**contents(work_dir), **contents(out)} == before
        for number in range(6, 9):
            (root / 'images' / f'{number}.jpg').unlink()
            (root / 'labels' / f'{number}.txt').unlink()
        status, output = ended(log, run_fitted, False, *asked)  # the set is put back
        assert status == 0 and ('this training is finished' if finished else 'resuming from') in output, output[-3000:]
    grown(root, 9)
    read_data(root)  # somebody else has it converted
    own = (work_dir / 'config.py', '--work-dir', work_dir)
    for line in (asked, own):
        status, output = ended(log, run_fitted, False, *line)
        assert status == 2 and f'{out / "train.json"}' in errors(output)[0] and '--restart' in errors(output)[0]
    status, output = ended(log, run_fitted, False, *asked, '--restart')
    assert status == 0 and 'the earlier run is in' in output, output[-3000:]
    now = [names_in(out / name) for name in ('train.json', 'val.json')]
    assert all(first <= second for first, second in zip(split, now)) and sum(map(len, now)) == 9
    status, output = ended(log, run_fitted, False, *asked)
    assert status == 0 and 'this training is finished' in output


def test_a_training_on_coco_annotations_that_changed_is_refused(config: Path, data: Path, tmp_path: Path) -> None:
    """They are used where they lie. A run that has no record of them goes on as it did."""
    own, work_dir, log = shutil.copytree(data, tmp_path / 'own'), tmp_path / 'run', tmp_path / 'log'
    asked = (config, '--data', own, '--weights', 'none', '--work-dir', work_dir)
    assert ended(log, run_fitted, True, *asked)[0] == -signal.SIGKILL
    annotations, settings = own / 'annotations' / 'val.json', work_dir / 'settings.json'
    annotations.write_text(annotations.read_text() + ' ')
    for _ in range(2):
        status, output = ended(log, run_fitted, False, *asked)
        (error,) = errors(output)
        assert status == 2 and f'as it was before it changed (in {annotations})' in error
    note = json.loads(settings.read_text())
    assert note.pop('checksums of annotation files').keys() == {
        str(own / 'annotations' / f'{split}.json') for split in ('train', 'val')
    }
    settings.write_text(json.dumps(note))
    status, output = ended(log, run_fitted, False, *asked)
    assert status == 0 and 'resuming from' in output, output[-3000:]


def test_a_restarted_training_is_a_new_one(config: Path, tmp_path: Path) -> None:
    work_dir = tmp_path / 'run'
    for restart in ((), ('--restart',)):
        arguments = ('train', 'run_iter', 4, config, '--work-dir', work_dir, *restart)
        assert ended(tmp_path / 'log', run_killed, *arguments)[0] == -signal.SIGKILL
    (aside,) = work_dir.glob('before-*')
    assert (aside / 'iter_2.pth').is_file() and (aside / 'settings.json').is_file()
    assert torch.load(work_dir / 'iter_2.pth', weights_only=True)['meta']['iter'] == 2
    assert 'resuming' not in (tmp_path / 'log').read_text()
    status, output = ended(tmp_path / 'log', run_train, config, '--work-dir', work_dir, '--restart', '--resume')
    assert status == 2 and 'give one of them' in errors(output)[0]


def test_a_restart_leaves_what_it_begins_with(tmp_path: Path) -> None:
    """Weights that were fitted to the data's classes are written into the work folder before."""
    for name in ('config.py', 'config_resolved.py', 'epoch_2.pth', 'weights.pth'):
        (tmp_path / name).touch()
    settings = dict(work_dir=str(tmp_path), load_from=str(tmp_path / 'weights.pth'), launcher='none')
    assert begin(Config(settings, filename=str(tmp_path / 'config.py')), {}, resume=None, restart=True)
    (aside,) = tmp_path.glob('before-*')
    assert {path.name for path in aside.iterdir()} == {'config_resolved.py', 'epoch_2.pth'}
    assert {path.name for path in tmp_path.glob('*.*')} == {'config.py', 'weights.pth'}


def test_a_config_in_its_own_work_folder_stays_as_it_is(config: Path, tmp_path: Path) -> None:
    own = tmp_path / 'config.py'
    own.write_text(config.read_text())
    assert (
        ended(tmp_path / 'log', run_killed, 'train', 'run_iter', 1, own, '--work-dir', tmp_path)[0] == -signal.SIGKILL
    )
    assert own.read_text() == config.read_text() and 'max_keep_ckpts' in (tmp_path / 'config_resolved.py').read_text()


def wait_inside(folder: str, ready: str) -> int:
    with claimed(folder):
        Path(ready).touch()
        time.sleep(60)
    return 0


def test_two_trainings_do_not_write_to_one_folder(config: Path, tmp_path: Path) -> None:
    work_dir, ready = tmp_path / 'run', tmp_path / 'ready'
    work_dir.mkdir()
    other = Started(tmp_path / 'other', wait_inside, str(work_dir), str(ready))
    other.wait_for(ready.exists)
    status, output = ended(tmp_path / 'log', run_train, config, '--work-dir', work_dir)
    (error,) = errors(output)
    assert status == 2 and f'process {other.process.pid} writes to {work_dir} at this moment' in error
    os.killpg(other.process.pid, signal.SIGKILL)  # the claim ends with the process
    other.status()
    with claimed(work_dir):
        pass


@pytest.mark.parametrize(
    ('mistake', 'message'),
    [
        ("train_dataloader['batch_size'] = 0\n", 'batch_size'),  # before the run is built
        ('load_from = {config!r}\n', 'given.py'),  # after that, when logs have begun and the config is written down
    ],
)
def test_a_training_that_is_refused_leaves_the_folder_as_it_was(mistake: str, message: str, tmp_path: Path) -> None:
    config, work_dir = tmp_path / 'given.py', tmp_path / 'a' / 'run'
    small_config(tmp_path, mistake.format(config=str(config))).rename(config)
    run = {
        'given.py': 'of the start before',
        '20260101_000000/a.log': 'its log',
        'iter_2.pth': 'weights',
        'my.py': 'own',
    }
    for there, more in (({}, ()), (run, ('--restart',))):
        for name, text in there.items():
            (work_dir / name).parent.mkdir(parents=True, exist_ok=True)
            (work_dir / name).write_text(text)
        status, text = ended(tmp_path / 'log', run_train, config, '--work-dir', work_dir, *more)
        (error,) = errors(text)
        assert status == 2 and message in error
        files = {path.relative_to(work_dir).as_posix(): path.read_text() for path in work_dir.rglob('*.*')}
        assert files == there and (tmp_path / 'a').exists() is bool(there)


def test_a_claim_is_of_the_file_that_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One who opened the file before another removed it has locked nothing."""
    lock, locked = work_dir._lock, []

    def removed_meanwhile(file: Any, folder: Any) -> None:
        lock(file, folder)
        locked.append(file.name)
        if len(locked) == 1:
            (tmp_path / '.lock').unlink()

    monkeypatch.setattr(work_dir, '_lock', removed_meanwhile)
    with claimed(tmp_path):
        assert len(locked) == 2 and (tmp_path / '.lock').read_text() == f'{os.getpid()}\n'
    assert not any(tmp_path.iterdir())


def test_an_evaluation_leaves_the_results_of_the_one_before_until_it_is_done(
    trained: Path, config: Path, tmp_path: Path
) -> None:
    prefix = tmp_path / 'found'
    arguments = (config, trained / f'iter_{STEPS}.pth', '--work-dir', tmp_path / 'test', '--out', prefix)
    files = [Path(f'{prefix}.bbox.json'), Path(f'{prefix}.metrics.json')]
    assert ended(tmp_path / 'log', run_test_killed, *arguments)[0] == -signal.SIGKILL
    assert not any(path.exists() for path in files)
    results = []
    for _ in range(2):
        assert ended(tmp_path / 'log', run_test, *arguments)[0] == 0
        results.append([path.read_bytes() for path in files])
    assert results[0] == results[1] and not list(tmp_path.glob('*partial*'))
    assert ended(tmp_path / 'log', run_test_killed, *arguments)[0] == -signal.SIGKILL
    assert [path.read_bytes() for path in files] == results[0]


# --- tools/analyze_queries.py, tools/calibrate.py ---------------------------------------------------------------------


def run_analyze(killed: bool, *arguments: object) -> int:
    analyze.sections_of = lambda *_: []
    if killed:
        killed_in(analyze, 'page')
    return launch.run_tool(lambda: analyze.analyze([str(argument) for argument in arguments]))


def run_calibrate(killed: bool, *arguments: object) -> int:
    if killed:
        killed_in_writing('fit.py')
    return launch.run_tool(lambda: calibrate.calibrate([str(argument) for argument in arguments]))


@pytest.mark.parametrize('run', [run_analyze, run_calibrate], ids=['analyze_queries', 'calibrate'])
def test_an_outcome_is_made_once_and_never_half(
    run: Callable[..., int], trained: Path, config: Path, tmp_path: Path
) -> None:
    of_analysis = run is run_analyze
    out = tmp_path / 'queries' if of_analysis else tmp_path / 'fit'
    last = out / 'index.html' if of_analysis else tmp_path / 'fit.py'
    short, other = (('--images', 2), ('--images', 3)) if of_analysis else ((), ('--iou', 0.4))
    named = 'images: 2 there, 3 asked for now' if of_analysis else 'iou: 0.5 there, 0.4 asked for now'
    arguments = (config, trained / f'iter_{STEPS}.pth', '--out', out, '--device', 'cpu', *short)
    log = tmp_path / 'log'
    assert ended(log, run, True, *arguments)[0] == -signal.SIGKILL and not last.exists()
    status, output = ended(log, run, False, *arguments)
    assert status == 0 and 'finished before' not in output, output[-3000:]
    made = last.stat().st_mtime_ns
    status, output = ended(log, run, False, *arguments)
    assert status == 0 and 'finished before' in output and str(last) in output and last.stat().st_mtime_ns == made
    status, output = ended(log, run, False, *arguments, *other)
    assert status == 2 and named in errors(output)[0] and '--restart' in errors(output)[0]
    assert ended(log, run, False, *arguments, *other, '--restart')[0] == 0 and last.stat().st_mtime_ns > made


def test_an_edited_calibration_is_not_lost(trained: Path, config: Path, tmp_path: Path) -> None:
    arguments = (config, trained / f'iter_{STEPS}.pth', '--out', tmp_path / 'fit', '--device', 'cpu')
    (tmp_path / 'fit.py').write_text('score_thr = 0.3  # by hand\n')
    status, output = ended(tmp_path / 'log', run_calibrate, False, *arguments)
    assert status == 2 and 'was edited, or not written by this tool' in errors(output)[0]
    assert (tmp_path / 'fit.py').read_text() == 'score_thr = 0.3  # by hand\n'


# --- tools/make_digits.py, tools/convert_checkpoint.py ----------------------------------------------------------------


def run_digits(root: str, ready: str) -> int:
    """``build_digits`` that waits in the middle of an image."""
    save = Image.Image.save

    def slow(self: Image.Image, *arguments: Any, **options: Any) -> None:
        save(self, *arguments, **options)
        Path(ready).touch()
        for _ in range(600):  # in pieces: a signal right before a sleep is heard after it
            time.sleep(0.1)

    Image.Image.save = slow
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has what it runs in the background ignore it
    return launch.run_tool(lambda: build_digits(root, num_train=2, num_val=2, image_size=96, progress=False))


@pytest.mark.parametrize('signum', [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_digits_set_is_whole_or_absent(signum: signal.Signals, tmp_path: Path) -> None:
    root, ready = tmp_path / 'data' / 'digits', tmp_path / 'ready'
    run = Started(tmp_path / 'log', run_digits, str(root), str(ready))
    run.wait_for(ready.exists)
    os.kill(run.process.pid, signum)
    assert run.status() == (-signum if signum == signal.SIGKILL else 128 + signum), run.output()
    assert bool(list(root.parent.iterdir())) == (signum == signal.SIGKILL)
    build_digits(root, num_train=2, num_val=2, image_size=96, progress=False)
    assert [path.name for path in root.parent.iterdir()] == ['digits']


def test_a_conversion_called_again_is_done_already(trained: Path, tmp_path: Path) -> None:
    source, path = trained / f'iter_{STEPS}.pth', tmp_path / 'out.pth'
    convert_file(source, path, 'mmdet')
    before = path.read_bytes()
    assert convert_file(source, path, 'mmdet') is None and path.read_bytes() == before
    changed = tmp_path / 'changed' / source.name
    changed.parent.mkdir()
    torch.save({'state_dict': torch.load(source, weights_only=True)['state_dict']}, changed)
    for other, options, named in (
        (changed, {}, 'source_checksum'),
        (source, dict(source_classes=list('0123456789'), target_classes=['0', '7']), 'source_classes: None there'),
    ):
        with pytest.raises(InputError, match=f'of another conversion \\({named}.*--force'):
            convert_file(other, path, 'mmdet', **options)
    assert path.read_bytes() == before
    assert convert_file(changed, path, 'mmdet', force=True) is not None and path.read_bytes() != before
