"""The folder that a run writes to: can it be written, is there room, and does nobody else write there?"""

from __future__ import annotations

import errno
import os
import re
import shutil
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

if sys.platform != 'win32':
    import fcntl

import torch
from mmengine.config import Config
from torch import nn

from ..config_options import type_name
from ..errors import InputError
from . import run_settings
from .atomic_backend import remove_leftovers
from .preflight.config_mistakes import while_starting

# mmengine's logs of each start, those of --log, and what this package notes beside checkpoints
_NOTES = r'\d{8}_\d{6}|last_checkpoint|last_validation|settings\.json|csv|tensorboard|mlflow|wandb'
_OF_A_TRAINING = re.compile(rf'.*\.pth(\.outdated|\.tmp)?|{_NOTES}')
_OF_A_START = re.compile(rf'.*\.py|{_NOTES}')
CONFIG = 'config.py'
REPLACED = '.config.replaced.py'
"""The config of an earlier run: so it is called from when another one is written until that run is set aside."""
_LOCK = '.lock'
_ASIDE = 'before-*'
_LOGS = f'{"[0-9]" * 8}_{"[0-9]" * 6}'  # mmengine's folder of a start
# tensors as large as the parameters that an optimiser keeps: two of the Adam family, one of SGD with momentum
_OPTIMIZER_COPIES = {'SGD': 1, 'Adagrad': 1, 'Lion': 1}


def check_writable(folder: str | Path, option: str = '--work-dir') -> None:
    """Make the folder where it is missing, and write a file there; ``option`` of the command line names it.

    Raises:
        InputError: the system refuses.
    """
    folder = Path(folder)
    probe = folder / '.can_be_written'
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b'yes')
        probe.unlink()
    except OSError as error:
        raise InputError(
            f'cannot write to the folder {folder}: {error.strerror or error}; name another with {option}'
        ) from error


@contextmanager
def made(folder: str | Path, option: str = '--work-dir') -> Iterator[None]:
    """Make a folder that can be written to (:func:`check_writable`); with an InputError a new, empty one goes again."""
    folder = Path(folder)
    new = _missing(folder)
    check_writable(folder, option)
    try:
        yield
    except InputError:
        _remove_empty(new)
        raise


def _missing(folder: Path) -> list[Path]:
    """A folder and those that it is in, as far as they are not there, the innermost first."""
    return [path for path in (folder, *folder.parents) if not path.exists()]


def _remove_empty(folders: Sequence[Path]) -> None:
    """Of folders within each other, the innermost first, up to one that is not empty."""
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


@contextmanager
def unchanged_by_errors(*folders: str | Path) -> Iterator[None]:
    """With an InputError before a loop has begun, claimed folders get back what was set aside, and lose what is new."""
    with ExitStack() as stack:
        for folder in {*map(Path, folders)}:
            stack.enter_context(_unchanged_by_errors(folder))
        yield


@contextmanager
def _unchanged_by_errors(folder: Path) -> Iterator[None]:
    new, before = _missing(folder), {*folder.glob('*')}
    texts = {path: path.read_bytes() for path in before if path.suffix == '.py' or path.name == run_settings.NAME}
    try:
        yield
    except InputError as error:
        if not while_starting(error):
            raise
        for path in {*folder.glob('*')} - before:
            if _OF_A_START.fullmatch(path.name):
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()
        for path, text in texts.items():
            if path.is_file() and path.read_bytes() != text:
                path.write_bytes(text)
        for earlier in {*folder.glob(_ASIDE)} - before:
            for path in earlier.iterdir():
                if (folder / path.name).is_dir():  # begun anew
                    shutil.rmtree(folder / path.name)
                path.replace(folder / path.name)
            earlier.rmdir()
        replaced = folder / REPLACED
        if replaced.is_file():
            replaced.replace(folder / CONFIG)
        _remove_empty(new)
        raise


@contextmanager
def unchanged_unless_started(folder: Path, names: Sequence[str]) -> Iterator[None]:
    """With an error and no training started, files of these names are as they were, or gone where they are new.

    A start is known by its folder of logs, which :func:`unchanged_by_errors` takes away where it is refused. A folder
    that another process has claimed is left alone. Whoever writes these files must replace them, not write into them.
    """
    new, starts = _missing(folder), {*folder.glob(_LOGS)}
    paths = [folder / name for name in names]
    absent = [path for path in paths if not path.exists()]
    with _second_names([] if _is_claimed(folder) else [path for path in paths if path.is_file()]) as earlier:
        try:
            yield
        except BaseException:
            if not _is_claimed(folder) and not {*folder.glob(_LOGS)} - starts:
                for path in filter(Path.exists, absent):
                    path.unlink()
                for path, second in earlier.items():
                    with suppress(FileNotFoundError):  # another process, refused meanwhile, has taken it away
                        os.replace(second, path)
                _remove_empty(new)
            raise


@contextmanager
def _second_names(paths: Sequence[Path]) -> Iterator[dict[Path, Path]]:
    """Second names for files, by which they are there still where others have been put in their place; gone at the end.

    Those of a process that was killed stay until the next one comes.
    """
    seconds = {path: path.with_name(f'.{path.name}.before') for path in paths}
    for path, second in seconds.items():
        second.unlink(missing_ok=True)
        try:
            os.link(path, second)
        except OSError:  # a file system without them
            shutil.copy2(path, second)
    try:
        yield seconds
    finally:
        for second in seconds.values():
            second.unlink(missing_ok=True)


@contextmanager
def claimed(folder: str | Path, name: str = _LOCK) -> Iterator[None]:
    """Keep other processes out of a folder as long as this one is inside; the claim ends with the process, however.

    The file that is locked goes at the end; that of a process that was killed stays, and keeps nobody out. Nor is
    anybody kept out where the system or the file system knows no locks.

    Args:
        folder: that exists.
        name: of that file; those who name different ones do not mind each other.

    Raises:
        InputError: another process is inside.
    """
    if sys.platform == 'win32':
        yield
        return
    path = Path(folder) / name
    while True:
        with open(path, 'a+', encoding='utf-8') as file:
            _lock(file, folder)
            if not _is_at(file, path):  # the one before has removed it since it was opened
                continue
            file.truncate(0)
            file.write(f'{os.getpid()}\n')
            file.flush()
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return


def _is_claimed(folder: Path) -> bool:
    """Whether a process that lives has claimed a folder."""
    try:
        os.kill(int((folder / _LOCK).read_text(encoding='utf-8')), 0)
    except (FileNotFoundError, ProcessLookupError):
        return False
    except (OSError, ValueError):  # it is another person's, or just being written
        return True
    return True


def _lock(file: IO[str], folder: str | Path) -> None:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            file.seek(0)
            pid = file.read().strip()
            owner, how = (f'process {pid}', f'end it (kill {pid})') if pid else ('another process', 'end it')
            raise InputError(
                f'{owner} writes to {folder} at this moment; wait until it has ended, {how} or name another --work-dir'
            ) from error


def _is_at(file: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def set_aside(folder: str | Path, also: Collection[str] = (), keep: Collection[str] = ()) -> Path | None:
    """Move what an earlier training wrote into a folder of its own, ``before-DATE-TIME``; None: there was nothing.

    Moved are checkpoints, logs, notes of them, a config that another has replaced, and what is named in ``also``, but
    for what is named in ``keep``; all else stays.
    """
    folder, also = Path(folder), {REPLACED, *also}
    present = [path for path in sorted(folder.iterdir()) if path.name not in keep]
    of_a_run = [path for path in present if path.name in also or _OF_A_TRAINING.fullmatch(path.name)]
    if not of_a_run:
        return None
    target = folder / time.strftime('before-%Y%m%d-%H%M%S')
    target.mkdir()
    for path in of_a_run:
        path.rename(target / (CONFIG if path.name == REPLACED else path.name))
    return target


def check_room(cfg: Config, model: nn.Module) -> None:
    """Compare the room on the disk with the size of the checkpoints that are going to be written.

    Prints a note when it is enough for one checkpoint, but not for all that are kept and the one that replaces the
    oldest.

    Raises:
        InputError: one checkpoint would not fit.
    """
    folder = checkpoint_folder(cfg)
    check_writable(folder)
    remove_leftovers(folder)
    size, free = checkpoint_size(cfg, model), shutil.disk_usage(folder).free
    if size > free:
        raise InputError(
            f'a checkpoint takes about {_mb(size)} and there are {_mb(free)} free at {folder}; make room, or name '
            'another folder with --work-dir'
        )
    kept = _checkpoint_hook(cfg).get('max_keep_ckpts', -1)
    missing = kept + 1 - len([*folder.glob('epoch_*.pth'), *folder.glob('iter_*.pth')])
    if kept > 0 and missing * size > free:
        print(
            f'note: {kept} checkpoints of about {_mb(size)} are kept and one more while the oldest is replaced; the '
            f'{_mb(free)} free at {folder} are not enough for {missing} more. Make room, or keep fewer with '
            'default_hooks.checkpoint.max_keep_ckpts'
        )


def checkpoint_folder(cfg: Config) -> Path:
    """Where ``CheckpointHook`` writes: the work folder, or one of that name in its ``out_dir``."""
    out_dir = _checkpoint_hook(cfg).get('out_dir')
    return Path(cfg.work_dir) if out_dir is None else Path(out_dir) / Path(cfg.work_dir).name


def checkpoint_size(cfg: Config, model: nn.Module) -> int:
    """Bytes of a training checkpoint, about: weights, those of the EMA, and the optimiser's state."""
    weights = sum(map(_bytes, model.state_dict().values()))
    trained = sum(_bytes(parameter) for parameter in model.parameters() if parameter.requires_grad)
    optimizer = cfg.optim_wrapper.get('optimizer') or {}
    copies = _OPTIMIZER_COPIES.get(type_name(optimizer), 2)
    if type_name(optimizer) == 'SGD' and not optimizer.get('momentum'):
        copies = 0
    has_ema = any(type_name(hook) == 'EMAHook' for hook in cfg.get('custom_hooks') or ())
    return weights * (2 if has_ema else 1) + trained * copies


def _bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _checkpoint_hook(cfg: Config) -> Any:
    return (cfg.get('default_hooks') or {}).get('checkpoint') or {}


def _mb(size: int) -> str:
    return f'{size / 1e6:.0f} MB'
