"""Disks that are full, limited or read-only: told before training where that can be, else in a sentence at the end."""

from __future__ import annotations

import errno
import os
import re
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import small_detector
from mmengine.config import Config
from mmengine.fileio import get_file_backend
from started_run import ended, errors, run_train, small_config
from toy_run import CallAt, toy_runner

from mmdet_iouquery.checkpoints.files import damage
from mmdet_iouquery.engine.launch import run_tool, train
from mmdet_iouquery.engine.stop_reasons import told_endings
from mmdet_iouquery.engine.work_dir import check_room, check_writable, checkpoint_folder, checkpoint_size
from mmdet_iouquery.errors import CheckpointWriteError, InputError

CHECKPOINT_MB = 5


@pytest.fixture(scope='module')
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_config(tmp_path_factory.mktemp('small'), "default_hooks['checkpoint'].update(interval=1)\n")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with room for a checkpoint and a half, and the run's logs."""
    folder = tmp_path / 'disk'
    folder.mkdir()
    size = int(1.5 * CHECKPOINT_MB * 2**20)
    done = subprocess.run(
        ['mount', '-t', 'tmpfs', '-o', f'size={size}', 'tmpfs', folder], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f'a tmpfs cannot be mounted here: {done.stderr.strip()}')
    yield folder
    subprocess.run(['umount', '--lazy', folder], check=True)


def test_a_disk_that_gets_full_in_training(config: Path, small_disk: Path, tmp_path: Path) -> None:
    work_dir = small_disk / 'run'
    status, output = ended(tmp_path / 'log', run_train, config, '--work-dir', work_dir)
    assert status == 4, output[-3000:]
    first, second = work_dir / 'iter_1.pth', work_dir / 'iter_2.pth'
    (message,) = errors(output)
    assert message == (
        f'error: cannot write {second}: No space left on device; the newest whole checkpoint is {first}; make room '
        "there, then the same command goes on from it (mmdet's own tools: with --resume)"
    )
    assert [path.name for path in work_dir.glob('*.pth*')] == ['iter_1.pth'] and damage(first) is None
    assert re.search(r'note: 2 checkpoints of about \d MB are kept and one more.* are not enough for 3 more', output)

    (small_disk / 'ballast').write_bytes(bytes(2 * 2**20))
    status, output = ended(tmp_path / 'log', run_train, config, '--work-dir', work_dir, '--resume')
    assert status == 2
    (message,) = errors(output)
    assert re.search(rf'a checkpoint takes about \d MB and there are \d MB free at {work_dir}; make room', message)


def test_a_limit_of_file_sizes(config: Path, tmp_path: Path) -> None:
    """The write itself breaks off: nothing of it is left."""
    status, output = ended(tmp_path / 'log', limited, config, '--work-dir', tmp_path / 'run')
    assert status == 4, output[-3000:]
    (message,) = errors(output)
    assert message == (
        f'error: cannot write {tmp_path / "run" / "iter_1.pth"}: File too large; there is no whole checkpoint in '
        f'{tmp_path / "run"} yet; raise the limit of the size of a file (ulimit -f, or the file system), then start '
        'again'
    )
    assert not list((tmp_path / 'run').glob('*.pth*'))


def limited(*arguments: object) -> int:
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))
    return run_train(*arguments)


@pytest.mark.parametrize('code', [errno.ENOSPC, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize('call', ['write', 'fsync', 'replace'])
def test_whatever_part_of_a_write_fails(call: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The temporary file goes, what was there stays, and the one that was to be removed gets its name back."""
    backend = get_file_backend(backend_args={'backend': 'atomic'})
    for name in ('iter_1.pth', 'iter_2.pth'):
        torch.save({'w': torch.zeros(9)}, tmp_path / name)
        os.utime(tmp_path / name, (int(name[5]),) * 2)
    backend.remove(tmp_path / 'iter_1.pth')

    def fail(*_: Any) -> None:
        raise OSError(code, os.strerror(code))

    if call == 'write':
        monkeypatch.setattr(type(backend), '_write', fail)
    else:
        monkeypatch.setattr(os, call, fail)
    with pytest.raises(CheckpointWriteError, match=rf'iter_3\.pth: {os.strerror(code)}; .* is .*iter_2\.pth'):
        backend.put(b'new', tmp_path / 'iter_3.pth')
    assert sorted(os.listdir(tmp_path)) == ['iter_1.pth', 'iter_2.pth']
    monkeypatch.undo()
    backend.remove(tmp_path / 'iter_1.pth')
    backend.put(b'new', tmp_path / 'iter_3.pth')
    assert sorted(os.listdir(tmp_path)) == ['iter_2.pth', 'iter_3.pth']


def test_a_log_that_cannot_be_written_ends_training_likewise(tmp_path: Path) -> None:
    """Any hook may meet the full disk first: here one, as it writes its curves."""

    def full(_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / 'scalars.json'))

    def other(_: Any) -> None:
        raise FileNotFoundError(errno.ENOENT, 'no such image', 'a.jpg')

    runner = toy_runner(tmp_path, CallAt('before_train_iter', 3, full), by_epoch=False, length=5, interval=2)
    message = r'scalars\.json: No space left.* is .*iter_2\.pth; make room'
    with pytest.raises(CheckpointWriteError, match=message), told_endings(runner, tmp_path):
        runner.train()
    runner = toy_runner(tmp_path, CallAt('before_train_iter', 3, other), by_epoch=False, length=5)
    with pytest.raises(FileNotFoundError), told_endings(runner, tmp_path):
        runner.train()


@pytest.mark.parametrize('folder', ['file/run', '/proc/run'])
def test_a_work_folder_that_cannot_be_written(
    folder: str, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Below a file, and where not even root may write: said before anything is built."""
    (tmp_path / 'file').write_text('')
    work_dir = tmp_path / folder
    assert run_tool(lambda: train([str(config), '--work-dir', str(work_dir)])) == 2
    assert re.fullmatch(
        rf'error: cannot write to the folder {work_dir}: .+; name another with --work-dir\n',
        capsys.readouterr().err,
    )
    check_writable(tmp_path / 'new' / 'run')
    assert os.listdir(tmp_path / 'new' / 'run') == []


@pytest.mark.parametrize(
    ('optimizer', 'copies'),
    [({'type': 'AdamW'}, 2), ({'type': 'SGD', 'momentum': 0.9}, 1), ({'type': 'SGD'}, 0)],
    ids=['AdamW', 'momentum', 'SGD'],
)
@pytest.mark.parametrize('ema', [True, False])
def test_the_size_of_a_checkpoint_is_known_beforehand(
    optimizer: dict[str, Any], copies: int, ema: bool, tmp_path: Path
) -> None:
    """Within two per cent, of 20 million parameters: the rest is names and settings."""
    model = small_detector()
    steps = torch.optim.AdamW if copies == 2 else torch.optim.SGD
    optim = steps(model.parameters(), lr=1e-4, **{k: v for k, v in optimizer.items() if k != 'type'})
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optim.step()
    content = {'state_dict': model.state_dict(), 'optimizer': optim.state_dict()}
    if ema:
        content['ema_state_dict'] = {key: value.clone() for key, value in model.state_dict().items()}
    torch.save(content, tmp_path / 'a.pth')
    cfg = Config(
        {'optim_wrapper': {'optimizer': optimizer}, 'custom_hooks': [{'type': 'mmdet.EMAHook'}] if ema else []}
    )
    # names and settings
    assert checkpoint_size(cfg, model) == pytest.approx((tmp_path / 'a.pth').stat().st_size, rel=0.02)


def room_config(folder: Path, **checkpoint: Any) -> Config:
    hooks = {'checkpoint': {'type': 'CheckpointHook', **checkpoint}}
    return Config({'work_dir': str(folder), 'optim_wrapper': {'optimizer': {'type': 'AdamW'}}, 'default_hooks': hooks})


def test_room_is_asked_of_the_disk_that_is_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    model = torch.nn.Linear(1000, 1000, bias=False)  # 4 MB, and 8 MB of the optimiser
    cfg = room_config(tmp_path / 'runs' / 'a', max_keep_ckpts=2, out_dir=str(tmp_path / 'store'))
    folder = tmp_path / 'store' / 'a'
    assert checkpoint_folder(cfg) == folder

    def free(size: int) -> None:
        monkeypatch.setattr('shutil.disk_usage', lambda path: {folder: type('Usage', (), {'free': size})}[path])

    free(11_999_999)
    with pytest.raises(InputError, match=f'about 12 MB and there are 12 MB free at {folder}; make room'):
        check_room(cfg, model)
    (folder / 'iter_3.pth.tmp').write_bytes(b'of a run that was killed')
    free(35_999_999)
    check_room(cfg, model)
    assert 'are not enough for 3 more' in capsys.readouterr().out and not list(folder.iterdir())
    for room, present in ((36_000_000, 0), (24_000_000, 1)):
        free(room)
        for number in range(present):
            (folder / f'iter_{number}.pth').write_bytes(b'')
        check_room(cfg, model)
        assert capsys.readouterr().out == ''
