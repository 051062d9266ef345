"""The config that ``iouquery train NAME --data FOLDER`` writes, the first time and after."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import small_detector
from mmengine.config import Config
from mmengine.logging import MMLogger

from mmdet_iouquery.apps.quickstart.digits import build_digits
from mmdet_iouquery.apps.train import command
from mmdet_iouquery.apps.train import request as subject
from mmdet_iouquery.apps.train.request import TrainRequest, default_folder, written_config
from mmdet_iouquery.config_files import config_path
from mmdet_iouquery.engine.work_dir import claimed, set_aside, unchanged_by_errors, unchanged_unless_started
from mmdet_iouquery.errors import InputError
from mmdet_iouquery.file_io import write_text
from mmdet_iouquery.main import main

pytest.importorskip('sklearn')


@pytest.fixture(scope='module')
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(build_digits(tmp_path_factory.mktemp('data') / 'my digits', num_train=12, num_val=6, image_size=96))


@pytest.fixture(autouse=True)
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What would be fetched."""
    loaded: list[str] = []
    monkeypatch.setattr(subject, 'load_checkpoint', loaded.append)
    return loaded


def write(data: Path, folder: Path, config: str = 'rtdetr_r18vd', **asked: Any) -> Path:
    return written_config(config, TrainRequest(data, work_dir=folder, **asked)).path


def test_what_is_written_and_said(data: Path, tmp_path: Path, fetched: list[str]) -> None:
    request = TrainRequest(data, work_dir=tmp_path, epochs=3, size=320, log='csv')
    path, output = written_config('rtdetr_r18vd', request)
    assert path == tmp_path / 'config.py' and output.endswith('\n')
    assert f'again    iouquery train {path} --log csv   (goes on' in output
    assert f'config   {path}\n' in output and f'iouquery train {path}' in output
    assert len(fetched) == 1 and f"weights  the config's backbone: {fetched[0]}\n" in output
    assert '12 images for training, 6 for validation: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9\n' in output
    assert 'rate     5e-05 at 8 images a step\n' in output  # 1e-4 for 16
    cfg = Config.fromfile(path)
    assert cfg.train_cfg.max_epochs == 3 and cfg.train_dataloader.batch_size == 8 and cfg.auto_scale_lr.enable
    assert cfg.model.backbone.init_cfg.type == 'ConvertedPretrained'
    assert path.read_text().startswith('"""rtdetr_r18vd_8xb2-72e_coco with --data ')


def test_overrides_are_the_last_word(data: Path, tmp_path: Path) -> None:
    """A batch of theirs is as that of ``--batch``: the rate goes with it."""
    options = {'train_dataloader.batch_size': 4, 'default_hooks.checkpoint.interval': 2}
    path, summary = written_config('rtdetr_r18vd', TrainRequest(data, work_dir=tmp_path, epochs=3, options=options))
    cfg = Config.fromfile(path)
    assert cfg.train_dataloader.batch_size == 4 and cfg.default_hooks.checkpoint.interval == 2
    assert 'rate     2.5e-05 at 4 images a step\n' in summary


def test_another_spelling_of_the_same_folder_is_the_same_run(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data.parent)
    write(Path(data.name), tmp_path, epochs=3)
    (tmp_path / 'epoch_1.pth').touch()
    for spelling in (data, Path('..', data.parent.name, data.name)):
        cfg = Config.fromfile(write(spelling, tmp_path, epochs=3))
        assert cfg.train_cfg.max_epochs == 3


def test_two_lengths_are_one_too_many(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r'--epochs and train_cfg\.max_epochs of --cfg-options both say how long'):
        write(data, tmp_path, epochs=3, options={'train_cfg.max_epochs': 4})
    assert not [*tmp_path.iterdir()]


def test_the_same_again_and_something_else(data: Path, tmp_path: Path) -> None:
    """Without a checkpoint there is nothing to lose."""
    text = write(data, tmp_path, epochs=3).read_text()
    assert write(data, tmp_path, epochs=3).read_text() == text
    text = write(data, tmp_path, epochs=4).read_text()
    (tmp_path / 'epoch_1.pth').touch()
    assert write(data, tmp_path, epochs=4).read_text() == text
    error = r'another config \(there: rtdetr.* --epochs 4; asked for now: rtdetr.* --epochs 5\); go on with that one by'
    with pytest.raises(InputError, match=error):
        write(data, tmp_path, epochs=5)
    edited = text.replace('max_epochs=4', 'max_epochs=6')
    (tmp_path / 'config.py').write_text(edited)
    with pytest.raises(InputError, match=r'another config \(train_cfg.max_epochs: 6 there, 4 asked for now\)'):
        write(data, tmp_path, epochs=4)
    (tmp_path / 'config.py').write_text(text)
    assert (tmp_path / 'config.py').read_text() == text
    assert 'max_epochs=5' in write(data, tmp_path, epochs=5, restart=True).read_text()


def test_a_config_whose_parts_cannot_be_imported(data: Path, tmp_path: Path) -> None:
    path = tmp_path / 'own.py'
    path.write_text("custom_imports = dict(imports=['no.such_parts'], allow_failed_imports=False)\n")
    text = r'^reading .*own\.py fails: ImportError: .*no\.such_parts.*; install what is missing, or take the entry out'
    with pytest.raises(InputError, match=text):
        written_config(str(path), TrainRequest(data, work_dir=tmp_path / 'new'))
    assert not (tmp_path / 'new').exists()


def test_a_stop_before_the_name_is_given_leaves_what_was_there(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = write(data, tmp_path, epochs=3).read_text()
    with monkeypatch.context() as patch:
        patch.setattr('os.replace', _interrupted)
        with pytest.raises(KeyboardInterrupt):
            write(data, tmp_path, epochs=4)
    assert (tmp_path / 'config.py').read_text() == before
    write(data, tmp_path, epochs=4)


def _interrupted(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_weights_are_fitted_or_none(data: Path, tmp_path: Path) -> None:
    torch.save(dict(state_dict=small_detector(bbox_head__num_classes=80).state_dict()), tmp_path / 'coco.pth')
    request = TrainRequest(data, str(tmp_path / 'coco.pth'), work_dir=tmp_path / 'run')
    path, summary = written_config('rtdetr_r18vd', request)
    cfg = Config.fromfile(path)
    assert cfg.load_from == str(tmp_path / 'run' / 'weights.pth') and Path(cfg.load_from).is_file()
    assert cfg.model.backbone.init_cfg is None
    assert 'classes started afresh: 0, 1, 2' in summary
    cfg = Config.fromfile(write(data, tmp_path / 'other', weights='none'))
    assert cfg.load_from is None and cfg.model.backbone.init_cfg is None


def test_a_detector_that_its_config_begins_with(data: Path, tmp_path: Path, fetched: list[str]) -> None:
    """Is fetched where no weights are named, and not where some or none are."""
    name = 'rtdetrv2_r18vd_dsp'
    cfg = Config.fromfile(write(data, tmp_path / 'own', config=name))
    assert fetched == [cfg.model.init_cfg.checkpoint] and 'rtdetrv2_r18vd' in fetched[0]
    cfg = Config.fromfile(write(data, tmp_path / 'none', config=name, weights='none'))
    assert cfg.model.init_cfg is None and cfg.model.backbone.init_cfg is None and len(fetched) == 1


def test_a_run_of_another_config_keeps_its_weights(data: Path, tmp_path: Path) -> None:
    model = small_detector(bbox_head__num_classes=80)
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'coco.pth')
    path = write(data, tmp_path / 'run', weights=str(tmp_path / 'coco.pth'))
    (path.parent / 'iter_1.pth').touch()
    before = (path.parent / 'weights.pth').read_bytes()
    torch.save(dict(state_dict=small_detector(bbox_head__num_classes=80).state_dict()), tmp_path / 'new.pth')
    with pytest.raises(InputError, match='holds a run of another config'):
        write(data, tmp_path / 'run', weights=str(tmp_path / 'new.pth'), epochs=9)
    assert (path.parent / 'weights.pth').read_bytes() == before
    write(data, tmp_path / 'run', weights=str(tmp_path / 'new.pth'), epochs=9, restart=True)
    assert (path.parent / 'weights.pth').read_bytes() != before


def test_weights_of_another_model_leave_nothing(data: Path, tmp_path: Path) -> None:
    """Nor do they touch a folder that was there."""
    other = small_detector(bbox_head__num_classes=80, neck__num_fusion_blocks=2)
    torch.save(dict(state_dict=other.state_dict()), tmp_path / 'other.pth')
    kept = tmp_path / 'kept'
    kept.mkdir()
    (kept / 'weights.pth').write_bytes(b'those of a run')
    for named in (data, None):
        for folder in (tmp_path / 'new' / 'run', kept):
            request = TrainRequest(named, str(tmp_path / 'other.pth'), epochs=3, work_dir=folder)
            with pytest.raises(InputError, match=r'other\.pth does not fit the model: weights \d+ missing'):
                written_config('rtdetr_r18vd', request)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['kept', 'other.pth']
    assert [(path.name, path.read_bytes()) for path in kept.iterdir()] == [('weights.pth', b'those of a run')]


def test_a_work_dir_that_is_a_file_is_refused(data: Path, tmp_path: Path) -> None:
    (tmp_path / 'file').write_text('of a person')
    with (
        pytest.raises(
            InputError, match=f'cannot write to the folder {tmp_path / "file"}: .*; name another with --work-dir'
        ),
        unchanged_unless_started(tmp_path / 'file', ['config.py']),
    ):
        write(data, tmp_path / 'file', weights='none')
    assert (tmp_path / 'file').read_text() == 'of a person'


def test_weights_are_read_before_data(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which may be converted first."""
    monkeypatch.setattr(subject, 'read_data', _interrupted)
    (tmp_path / 'damaged.pth').write_bytes(b'no checkpoint')
    with pytest.raises(InputError, match=r'damaged\.pth'):
        write(data, tmp_path / 'run', weights=str(tmp_path / 'damaged.pth'))
    with pytest.raises(KeyboardInterrupt):
        write(data, tmp_path / 'run', weights='none')


def test_a_teachers_files_are_found_from_another_folder(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is no file here stays as it is: a shipped config's name, an address."""
    monkeypatch.chdir(tmp_path)
    for name in ('teacher.py', 'teacher.pth'):
        Path(name).touch()
    Path('rtdetr_r50vd').mkdir()
    prefix = 'model.data_preprocessor.teacher'
    for model, checkpoint, expected in (
        ('teacher.py', 'teacher.pth', (str(tmp_path / 'teacher.py'), str(tmp_path / 'teacher.pth'))),
        ('rtdetr_r50vd', 'http://host/a.pth', ('rtdetr_r50vd', 'http://host/a.pth')),
    ):
        options = {f'{prefix}.model': model, f'{prefix}.checkpoint': checkpoint}
        request = TrainRequest(data, epochs=3, options=options, work_dir=tmp_path / 'run')
        path = written_config('rtdetr_r18vd_distilled', request).path
        teacher = Config.fromfile(path).model.data_preprocessor.teacher
        assert (teacher.model, teacher.checkpoint) == expected


def test_what_cannot_be_fetched_is_told_with_the_options_that_do_without(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(name: str) -> None:
        raise InputError(f'cannot fetch {name}')

    monkeypatch.setattr(subject, 'load_checkpoint', unreachable)
    with pytest.raises(InputError, match=r'cannot fetch https.*\. Or begin with --weights FILE, .* or --weights none'):
        write(data, tmp_path / 'new')
    assert not (tmp_path / 'new').exists()


@pytest.mark.parametrize(
    ('init_cfg', 'sources'),
    [
        ([dict(type='Kaiming')], []),
        (dict(type='Kaiming'), []),
        (dict(type='Pretrained', checkpoint='torchvision://resnet50'), ['torchvision://resnet50']),
    ],
)
def test_only_addresses_are_fetched_before_the_run(init_cfg: Any, sources: list[str], fetched: list[str]) -> None:
    cfg = Config(dict(model=dict(backbone=dict(init_cfg=init_cfg))))
    assert subject._own_weights(cfg) == [f"weights  the config's backbone: {name}" for name in sources] and not fetched


def test_a_line_to_type_is_quoted(data: Path, tmp_path: Path) -> None:
    path, summary = written_config('rtdetr_r18vd', TrainRequest(data, 'none', work_dir=tmp_path / 'a set'))
    (line,) = (line for line in summary.splitlines() if line.startswith('again '))
    assert shlex.split(line.partition('   (')[0]) == ['again', 'iouquery', 'train', str(path)]


def test_folders_and_bases(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert default_folder('x/rtdetr_r18vd_8xb2-72e_coco.py', Path('a/my-set.zip')) == Path(
        'work_dirs/rtdetr_r18vd_my-set'
    )
    assert default_folder('x/mine.py', None) == Path('work_dirs/mine')
    path = write(data, tmp_path / 'run', epochs=3)
    with pytest.raises(InputError, match='would be written over itself; name another folder with --work-dir'):
        written_config(str(path), TrainRequest(epochs=4, work_dir=tmp_path / 'run'))
    again = written_config(str(path), TrainRequest(epochs=4, work_dir=tmp_path / 'longer')).path
    cfg = Config.fromfile(again)
    assert cfg.train_cfg.max_epochs == 4 and cfg.model.bbox_head.num_classes == 10
    assert TrainRequest(work_dir=tmp_path).is_plain and not TrainRequest(epochs=1).is_plain
    assert subject.BATCH == 8


@pytest.mark.parametrize(
    ('asked', 'hooks', 'refusal'),
    [
        (['--log', 'nonesuch'], [], '--log nonesuch: there is no such log'),
        (['--cfg-options', 'visualizer.type=Nope'], [], "building the run fails at visualizer: no type 'Nope'"),
        (
            ['--log', 'csv'],
            [dict(type='GradientShareHook', rho=5, delta=1, default_weight=1)],
            'changes the weight of a distillation',
        ),
    ],
    ids=['before', 'while it is built', 'while it starts'],
)
def test_a_refusal_stands_alone_and_leaves_nothing(
    asked: list[str], hooks: list[Any], refusal: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The config that was written for it is gone, or as it was, and nothing is said of it."""
    folder, config = tmp_path / 'new' / 'run', tmp_path / 'own.py'
    config.write_text(f'_base_ = {config_path("rtdetr_r18vd")!r}\ncustom_hooks = {hooks}\n')
    torch.save(dict(state_dict=small_detector(bbox_head__num_classes=80).state_dict()), tmp_path / 'coco.pth')
    line = ['train', str(config), '--data', str(data), '--weights', str(tmp_path / 'coco.pth'), '--size', '64']
    for before in (None, 'mine = 1\n'):
        if before is not None:
            folder.mkdir(parents=True)
            (folder / 'config.py').write_text(before)
        MMLogger._instance_dict.clear()  # the logger of a run that began in the same second would be taken over
        assert main([*line, '--epochs', '1', '--no-check', '--work-dir', str(folder), *asked]) == 2
        out, err = capsys.readouterr()
        *_, sentence = err.splitlines()
        assert sentence.startswith('error: ') and refusal in sentence
        assert bool(out) == bool(hooks)  # which are asked only when a run starts
        if before is None:
            assert not (tmp_path / 'new').exists()
        else:
            assert [(path.name, path.read_text()) for path in folder.iterdir()] == [('config.py', before)]


@pytest.mark.parametrize('started', [False, True])
def test_what_processes_on_several_devices_refuse_leaves_nothing(
    started: bool, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their start is known by its log."""

    def run(*_: object, **__: object) -> int:
        assert (tmp_path / 'run' / 'config.py').is_file()
        if started:
            (tmp_path / 'run' / '20260101_000000').mkdir()
        return 1

    monkeypatch.setattr('torch.cuda.device_count', lambda: 2)
    monkeypatch.setattr(command, 'run_child', run)
    line = ['train', 'rtdetr_r18vd', '--data', str(data), '--weights', 'none', '--epochs', '1', '--devices', '2']
    with pytest.raises(SystemExit):
        main([*line, '--work-dir', str(tmp_path / 'run')])
    assert (tmp_path / 'run' / 'config.py').exists() == (tmp_path / 'run').exists() == started


@pytest.mark.parametrize('links', [True, False], ids=['links', 'copies'])
@pytest.mark.parametrize('ending', ['refused', 'begun', 'done'])
def test_weights_of_the_run_before_are_back_where_a_restart_is_refused(
    ending: str, links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, 'Operation not permitted')

    if not links:
        monkeypatch.setattr(os, 'link', refuse)
    weights = tmp_path / 'weights.pth'
    write_text(weights, 'of the run before')
    (tmp_path / '.weights.pth.before').write_text('of a process that was killed')
    with suppress(InputError), unchanged_unless_started(tmp_path, ['weights.pth', 'config.py']):
        write_text(weights, 'of other classes')
        write_text(tmp_path / 'config.py', 'new')
        if ending == 'begun':
            (tmp_path / '20260101_000000').mkdir()
        if ending != 'done':
            raise InputError('they do not fit')
    kept = {path.name: path.read_text() for path in tmp_path.iterdir() if path.is_file()}
    written = {'weights.pth': 'of other classes', 'config.py': 'new'}
    assert kept == ({'weights.pth': 'of the run before'} if ending == 'refused' else written)


def test_what_another_process_has_claimed_is_left_alone(tmp_path: Path) -> None:
    with claimed(tmp_path), suppress(InputError), unchanged_unless_started(tmp_path, ['config.py']):
        (tmp_path / 'config.py').touch()
        raise InputError('it writes here')
    assert (tmp_path / 'config.py').exists()


def test_a_claim_of_a_process_that_was_killed_keeps_nothing(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, '-c', '']) as ended:
        ended.wait()
    (tmp_path / '.lock').write_text(f'{ended.pid}\n')
    with suppress(InputError), unchanged_unless_started(tmp_path, ['config.py']):
        (tmp_path / 'config.py').touch()
        raise InputError('the refusal')
    assert not (tmp_path / 'config.py').exists()


def test_a_restart_keeps_the_config_of_the_run_before(data: Path, tmp_path: Path) -> None:
    """It goes with what is set aside, and is back where the call is refused before or after that."""
    path = write(data, tmp_path, weights='none', epochs=2)
    edited = f'{path.read_text()}\nmine = 1\n'
    path.write_text(edited)
    (tmp_path / 'epoch_2.pth').touch()
    for refused_late in (False, True):
        write(data, tmp_path, weights='none', epochs=3, restart=True)
        assert path.read_text() != edited
        with suppress(InputError), unchanged_by_errors(tmp_path):
            if refused_late:
                set_aside(tmp_path)
            raise InputError('the refusal')
        assert path.read_text() == edited and (tmp_path / 'epoch_2.pth').is_file() and not [*tmp_path.glob('before-*')]
    write(data, tmp_path, weights='none', epochs=3, restart=True)
    aside = set_aside(tmp_path)
    assert aside is not None and {file.name for file in aside.iterdir()} == {'config.py', 'epoch_2.pth'}
    assert (aside / 'config.py').read_text() == edited and 'max_epochs=3' in path.read_text()
