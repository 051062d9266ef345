"""Checkpoints are whole or absent, the newest whole one is found; one that does not fit, or holds code, is refused."""

from __future__ import annotations

import os
import random
import re
import stat
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import small_detector
from mmdet.registry import MODELS
from mmengine.fileio import get_file_backend
from started_run import small_config
from torch import nn
from toy_run import toy_runner

from mmdet_iouquery.checkpoints import hgnetv2
from mmdet_iouquery.checkpoints.files import damage, read_checkpoint
from mmdet_iouquery.engine import AtomicLocalBackend
from mmdet_iouquery.engine.launch import run_tool, test, train
from mmdet_iouquery.engine.preflight.checkpoint_check import check_checkpoint, check_pretrained
from mmdet_iouquery.engine.resume import checkpoint_to_resume, is_complete, latest_checkpoint
from mmdet_iouquery.errors import InputError

test.__test__ = False  # a function of the package, no test


def save(path: Path, value: float = 0.0) -> Path:
    torch.save({'state_dict': {'w': torch.full((9,), value)}}, path)
    return path


def tear(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def age(path: Path, seconds: int) -> None:
    os.utime(path, (1_700_000_000 - seconds,) * 2)


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backend, path = get_file_backend(backend_args={'backend': 'atomic'}), tmp_path / 'new' / 'epoch_1.pth'
    backend.put(b'first', path)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, 'fsync', killed)
    with pytest.raises(KeyboardInterrupt):
        backend.put(b'second', path)
    assert path.read_bytes() == b'first'
    monkeypatch.undo()
    backend.put(b'third', path)
    assert path.read_bytes() == b'third' and list(path.parent.iterdir()) == [path]


def test_a_file_is_on_the_disk_before_its_name_and_its_name_before_all_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []

    def flush(descriptor: int, original: Any = os.fsync) -> None:
        events.append('flush folder' if stat.S_ISDIR(os.fstat(descriptor).st_mode) else 'flush file')
        original(descriptor)

    def rename(*names: Any, original: Any = os.replace) -> None:
        events.append('rename')
        original(*names)

    monkeypatch.setattr(os, 'fsync', flush)
    monkeypatch.setattr(os, 'replace', rename)
    AtomicLocalBackend().put(b'new', tmp_path / 'iter_1.pth')
    assert events == ['flush file', 'rename', 'flush folder']


def test_what_killed_runs_left_half_written_goes_with_the_next_write(tmp_path: Path) -> None:
    for name in ('iter_1.pth.tmp', 'iter_2.pth.tmp', 'notes.tmp'):
        (tmp_path / name).write_bytes(b'half')
    AtomicLocalBackend().put(b'new', tmp_path / 'iter_3.pth')
    assert sorted(os.listdir(tmp_path)) == ['iter_3.pth', 'notes.tmp']


@pytest.mark.parametrize('save_best', [None, 'acc'])
def test_there_is_a_whole_checkpoint_at_every_moment(
    save_best: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one to keep, CheckpointHook removes it before it writes the next; likewise the best one.

    Until then they have another name, under which they are found.
    """
    present: list[list[str]] = []
    latest: list[str] = []

    def write(self: AtomicLocalBackend, obj: bytes, path: Path, original: Any = AtomicLocalBackend._write) -> None:
        original(self, obj, path)
        present.append(sorted(path.name for path in tmp_path.glob('*.pth*') if path.suffix != '.tmp'))
        latest.append(getattr(latest_checkpoint(tmp_path), 'name', ''))

    monkeypatch.setattr(AtomicLocalBackend, '_write', write)
    best = {'save_best': save_best, 'rule': 'greater', 'validate': 1} if save_best else {}
    toy_runner(tmp_path, by_epoch=True, length=3, interval=1, max_keep_ckpts=1, **best).train()
    if save_best is None:
        assert present == [[], ['epoch_1.pth.outdated'], ['epoch_2.pth.outdated']]
        assert latest == ['', 'epoch_1.pth.outdated', 'epoch_2.pth.outdated']
        assert sorted(path.name for path in tmp_path.glob('*.pth')) == ['epoch_3.pth']
        return
    # of each epoch: the training checkpoint, the best one, and the former again, which then tells of the best one
    best_1, best_2, best_3 = 'best_acc_epoch_1.pth', 'best_acc_epoch_2.pth', 'best_acc_epoch_3.pth'
    old = '.outdated'
    assert present == [
        [],
        ['epoch_1.pth'],
        [best_1, 'epoch_1.pth'],
        [best_1, 'epoch_1.pth' + old],
        [best_1 + old, 'epoch_2.pth'],
        [best_1 + old, best_2, 'epoch_2.pth'],
        [best_2, 'epoch_2.pth' + old],
        [best_2 + old, 'epoch_3.pth'],
        [best_2 + old, best_3, 'epoch_3.pth'],
    ]
    assert latest[1:] == [next(name for name in names if name.startswith('epoch')) for names in present[1:]]
    assert sorted(path.name for path in tmp_path.glob('*.pth')) == [best_3, 'epoch_3.pth']


def test_newest_whole_checkpoint(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path) is None
    first, second = save(tmp_path / 'iter_10.pth'), save(tmp_path / 'iter_20.pth')
    age(first, 20)
    age(second, 10)
    assert latest_checkpoint(tmp_path) == second
    note = tmp_path / 'last_checkpoint'
    for text in (str(first), f'/gone/{second.name}', '', '\0', 'x' * 5000, '/', str(tmp_path)):
        note.write_text(text)
        assert latest_checkpoint(tmp_path) == second, 'a kill came between the checkpoint and the note'
    note.write_bytes(b'\xff\xfe')
    assert latest_checkpoint(tmp_path) == second, 'the note is torn'
    tear(second)
    assert latest_checkpoint(tmp_path) == first, 'the newest is torn'
    age(second, 30)
    save(tmp_path / 'best_acc_iter_30.pth')
    assert latest_checkpoint(tmp_path) == first, 'the best one cannot be gone on from'


def test_of_equal_age_the_higher_number_is_newer(tmp_path: Path) -> None:
    """As in an archive, which knows whole seconds."""
    for number in (9, 100, 20):
        age(save(tmp_path / f'iter_{number}.pth'), 0)
    assert latest_checkpoint(tmp_path) == tmp_path / 'iter_100.pth'


def test_the_note_leads_to_other_names_and_folders(tmp_path: Path) -> None:
    elsewhere, work_dir = tmp_path / 'store [1]', tmp_path / 'run'
    for folder in (elsewhere, work_dir):
        folder.mkdir()
    old, new = save(elsewhere / 'v2_step[7].pth'), save(elsewhere / 'v2_step[8].pth')
    age(old, 10)
    (work_dir / 'last_checkpoint').write_text(str(old))
    assert latest_checkpoint(work_dir) == new
    own = save(work_dir / old.name)
    assert latest_checkpoint(work_dir) == own, 'the folder was copied, and the original went on'
    own.unlink()
    (work_dir / 'last_checkpoint').unlink()
    age(save(elsewhere / 'iter_3.pth'), 5)
    assert latest_checkpoint(work_dir) is None
    assert latest_checkpoint(work_dir, elsewhere) == elsewhere / 'iter_3.pth'


def test_a_flipped_bit_is_found_or_does_not_matter(tmp_path: Path) -> None:
    """Wherever it is; the directory, which is all that a quick look sees, is at the end."""
    path = save(tmp_path / 'iter_1.pth', value=3.0)
    whole, chance, num_noticed = path.read_bytes(), random.Random(0), 0
    weights = whole.index(torch.full((9,), 3.0).numpy().tobytes())
    for offset in [*range(weights, weights + 36), *(chance.randrange(len(whole)) for _ in range(300))]:
        changed = bytearray(whole)
        changed[offset] ^= 1 << chance.randrange(8)
        path.write_bytes(changed)
        if damage(path) is None:
            assert torch.equal(read_checkpoint(path)['state_dict']['w'], torch.full((9,), 3.0)), offset
        else:
            num_noticed += 1
            assert latest_checkpoint(tmp_path) is None
    assert num_noticed > 100
    changed = bytearray(whole)
    changed[weights] ^= 1
    path.write_bytes(changed)
    assert is_complete(path)
    with pytest.raises(InputError, match=r'iter_1\.pth is damaged: its record .*data/0 has another checksum'):
        checkpoint_to_resume(path)
    with pytest.raises(InputError, match=r'is damaged.*; get the file again'):
        read_checkpoint(path)


def test_a_named_checkpoint_must_be_there_and_whole(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r'there is no checkpoint .*none.pth'):
        checkpoint_to_resume(tmp_path / 'none.pth')
    tear(save(tmp_path / 'torn.pth'))
    with pytest.raises(InputError, match=r'torn.pth is not a complete checkpoint'):
        checkpoint_to_resume(tmp_path / 'torn.pth')
    torch.save({'w': torch.zeros(1)}, tmp_path / 'old.pth', _use_new_zipfile_serialization=False)
    with pytest.raises(InputError, match=r'old.pth is in the format of torch before 1.6, which has no checksums'):
        checkpoint_to_resume(tmp_path / 'old.pth')


@pytest.fixture(scope='module')
def detector() -> nn.Module:
    return small_detector()


def test_a_fitting_checkpoint_passes(detector: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / 'ours.pth'
    torch.save({'state_dict': {f'module.{k}': v for k, v in detector.state_dict().items()}}, path)
    assert set(check_checkpoint(detector, path)) == set(detector.state_dict())


def test_other_classes_are_told_from_another_architecture(detector: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / 'other.pth'
    torch.save({'state_dict': small_detector(bbox_head__num_classes=7).state_dict()}, path)
    with pytest.raises(InputError, match=r'other.pth was trained for another number of classes.*7 rows.*needs 5'):
        check_checkpoint(detector, path)
    torch.save({'state_dict': small_detector(bbox_head__decoder__num_layers=2).state_dict()}, path)
    with pytest.raises(InputError, match=r'other.pth does not fit the model.*missing \(such as bbox_head.decoder'):
        check_checkpoint(detector, path)
    torch.save({'state_dict': {**detector.state_dict(), 'roi_head.weight': torch.zeros(1)}}, path)
    with pytest.raises(InputError, match=r'1 unknown to the model \(such as roi_head.weight\)'):
        check_checkpoint(detector, path)


@pytest.mark.parametrize(
    ('content', 'message'), [(None, 'there is no file .*x.pth'), (b'text', 'x.pth is no checkpoint')]
)
def test_no_checkpoint_at_all(detector: nn.Module, tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / 'x.pth'
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        check_checkpoint(detector, path)


@pytest.mark.parametrize('kind', ['Pretrained', 'ConvertedPretrained'])
def test_weights_to_begin_with_that_are_missing(kind: str) -> None:
    """The entry is named, and how to do without; a teacher's file is for the teacher to read."""
    begin = {'type': kind, 'checkpoint': 'none.pth'}
    expected = (
        'model.backbone.init_cfg: there is no file none.pth; correct the path; or start from random weights, with '
        '--weights none, or model.backbone.init_cfg=None'
    )
    with pytest.raises(InputError, match=f'^{re.escape(expected)}$'):
        check_pretrained({'backbone': {'init_cfg': begin}})
    check_pretrained({'data_preprocessor': {'teacher': {'model': {'backbone': {'init_cfg': begin}}}}})


def test_weights_to_begin_with_that_do_not_fit(tmp_path: Path) -> None:
    """Of another width, or with unknown keys: the entry and the file are named, before work starts."""
    path = tmp_path / 'hgnetv2.pth'
    small, large = (MODELS.build(dict(type='HGNetv2', arch=arch)) for arch in ('B0', 'B1'))
    weights = {hgnetv2.BACKBONE.to_theirs(key): value for key, value in large.state_dict().items()}
    torch.save(weights, path)
    cfg = {'backbone': {'init_cfg': dict(type='ConvertedPretrained', checkpoint=str(path), source='hgnetv2_backbone')}}
    check_pretrained(cfg, nn.ModuleDict({'backbone': large}))
    for refused in (rf'{path} \(source .*\) does not fit HGNetv2: ', rf"{path}: unknown key 'x'"):
        with pytest.raises(InputError, match=rf'^model\.backbone\.init_cfg: {refused}.*; or start from random weights'):
            check_pretrained(cfg, nn.ModuleDict({'backbone': small}))
        torch.save({**weights, 'x': torch.zeros(1)}, path)


def test_going_on_takes_more_than_weights(detector: nn.Module, tmp_path: Path) -> None:
    path, weights = tmp_path / 'best.pth', detector.state_dict()
    torch.save({'state_dict': weights, 'meta': {'epoch': 3}, 'message_hub': {}}, path)
    check_checkpoint(detector, path)
    with pytest.raises(InputError, match=r'best.pth holds no state of a training.*\(optimizer, meta.iter missing\)'):
        check_checkpoint(detector, path, to_resume=True)
    torch.save({'state_dict': weights, 'meta': {'epoch': 3, 'iter': 9}, 'message_hub': {}, 'optimizer': {}}, path)
    check_checkpoint(detector, path, to_resume=True)


class MakesFolder:
    """Unpickling it makes the folder: what a file from a stranger could do."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.folder),)


@pytest.fixture(scope='module')
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_config(tmp_path_factory.mktemp('small'))


@pytest.mark.parametrize(
    'way', ['--resume', '--resume FILE', 'resume', 'load_from', 'Pretrained', 'ConvertedPretrained', 'test']
)
def test_code_in_a_checkpoint_is_refused_and_not_run(
    way: str, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Whichever way it comes in; mmengine itself would run it where torch refuses."""
    work_dir, marker = tmp_path / 'run', tmp_path / 'it ran'
    work_dir.mkdir()
    file = work_dir / 'iter_5.pth'
    torch.save({'state_dict': {'w': MakesFolder(marker)}, 'meta': {'epoch': 0, 'iter': 5}}, file)
    (work_dir / 'last_checkpoint').write_text(str(file))
    backbone = 'model.backbone.init_cfg'
    arguments = {
        '--resume': ['--resume'],
        '--resume FILE': ['--resume', str(file)],
        'resume': ['--cfg-options', 'resume=True'],
        'load_from': ['--cfg-options', f'load_from={file}'],
        'Pretrained': ['--cfg-options', f'{backbone}.type=Pretrained', f'{backbone}.checkpoint={file}'],
        'ConvertedPretrained': [
            '--cfg-options',
            f'{backbone}.type=ConvertedPretrained',
            f'{backbone}.checkpoint={file}',
            f'{backbone}.source=rtdetr_backbone',
        ],
        'test': [str(file)],
    }[way]
    tool = test if way == 'test' else train
    assert run_tool(lambda: tool([str(config), *arguments, '--work-dir', str(work_dir)])) == 2
    (message,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith('error: '))
    assert 'iter_5.pth holds more than tensors' in message and 'could run code from the file' in message
    assert not marker.exists()
    torch.load(file, weights_only=False)
    assert marker.exists(), 'the file has no teeth'
