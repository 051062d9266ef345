"""Checkpoint files: read without running code that they may hold, written whole or not at all."""

from __future__ import annotations

import os
import pickle
import pickletools
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from .safetensors_file import read_safetensors

FOLDER_FILES = ('model.safetensors', 'pytorch_model.bin')
"""What a Hugging Face folder holds its weights in, the first that is there."""

_OLD_FORMAT = pickle.dumps(torch.serialization.MAGIC_NUMBER, protocol=2)
"""What a file begins with that was written by torch before 1.6."""

_ARCHIVE = b'PK\x03\x04'
"""What a file begins with that was written by torch since."""

_FOLDER = 0x10
"""The attribute in a zip archive's directory that marks a folder."""


def read_checkpoint(path: str | Path) -> Mapping[str, Any]:
    """Content of a ``.pth``/``.pt``/``.bin`` or ``.safetensors`` file or of a Hugging Face folder, on the CPU.

    Raises:
        InputError: there is no such file, it is no checkpoint, torn, or holds objects that only code could restore.
    """
    path = checkpoint_file(path)
    content = read_safetensors(path) if path.suffix == '.safetensors' else _read_torch(path)
    if not isinstance(content, Mapping):
        raise InputError(
            f'{path} is no checkpoint: it holds a {type(content).__name__}, not a dict of tensors; name another file'
        )
    return content


def checkpoint_file(path: str | Path) -> Path:
    """The file that a path names, in a Hugging Face folder its weights.

    Raises:
        InputError: there is none, or it is no checkpoint by its first bytes.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        path = _in_folder(path)
    if not path.is_file():
        raise InputError(f'there is no file {path}; correct the path')
    if path.suffix != '.safetensors':
        _check_start(path)
    return path


def _check_start(path: Path) -> None:
    start = _start(path)
    if path.stat().st_size == 0:
        raise InputError(f'{path} is empty; get the file again')
    if start != _ARCHIVE and path.suffix == '.bin' and path.with_suffix('.xml').is_file():
        raise InputError(
            f'{path} holds the weights of the exported file {path.with_suffix(".xml")}, and is no checkpoint; name '
            'that file where exported ones are taken, otherwise the checkpoint that it was exported from'
        )
    if start and start[:1] not in (_ARCHIVE[:1], pickle.PROTO):
        raise InputError(_no_checkpoint(path))


def _in_folder(folder: Path) -> Path:
    for name in FOLDER_FILES:
        if (folder / name).is_file():
            return folder / name
    raise InputError(f'the folder {folder} has no {" or ".join(FOLDER_FILES)}; name the checkpoint file itself')


def _read_torch(path: Path) -> Any:
    reason = damage(path, opens=False) if has_checksums(path) else None  # torch itself looks at none
    if reason:
        raise InputError(f'{path} {reason}; get the file again')
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings('ignore', 'Detected pickle protocol')  # the message says what it is
            return torch.load(path, map_location='cpu', weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(unpickling_message(path, error)) from error
    except PermissionError as error:
        raise InputError(f'cannot read {path}: {error}; check the path, and who may read it') from error
    except Exception as error:  # a torn file fails in whatever way the first missing byte makes it
        raise InputError(f'{path} is cut short or no checkpoint ({_first_line(error)}); get the file again') from error


def read_meta(path: Path) -> Mapping[str, Any]:
    """What a training notes in its checkpoint beside the tensors, which are not read; empty: nothing.

    Args:
        path: a whole file, see :func:`damage`.

    Raises:
        InputError: it holds objects that only code could restore.
    """
    try:
        content = torch.load(path, map_location='cpu', mmap=True, weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(unpickling_message(path, error)) from error
    return content.get('meta') or {} if isinstance(content, Mapping) else {}


def has_checksums(path: Path) -> bool:
    """Whether torch takes a file for an archive, whose records have checksums: by its first bytes, as torch does.

    Not by the directory at its end, of which torch accepts what :mod:`zipfile` does not.
    """
    return _start(path) == _ARCHIVE


def _start(path: Path) -> bytes:
    """The first bytes of a file; none: it is empty, or cannot be read."""
    try:
        with open(path, 'rb') as file:
            return file.read(len(_ARCHIVE))
    except OSError:
        return b''


def is_zip(path: Path) -> bool:
    """Whether a file is a zip archive, as torch's are, by the directory at its end."""
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:  # of a directory that says what no archive of one file can
        return False


def damage(path: Path, *, opens: bool = True) -> str | None:
    """What is wrong with a PyTorch file, as the rest of a sentence; None: its checksums are right and torch opens it.

    Runs no code from the file, and leaves it to :func:`read_checkpoint` to say whether there is some.

    Args:
        path: of the file.
        opens: False: whether torch opens it is left to who reads it next.
    """
    try:
        with open(path, 'rb') as file:
            if file.read(len(_OLD_FORMAT)) == _OLD_FORMAT:
                return (
                    'is in the format of torch before 1.6, which has no checksums to tell whether it is whole; read it '
                    'and write it again with torch.save'
                )
        with zipfile.ZipFile(path) as archive:
            record = archive.testzip()
            names = archive.namelist()
            folders = [info.filename for info in archive.infolist() if info.external_attr & _FOLDER and info.file_size]
        if record:
            return f'is damaged: its record {record} has another checksum than when it was written'
        if not any(name.endswith('data.pkl') for name in names):
            return f'is a zip archive of other files ({", ".join(names[:3])}), and no PyTorch file'
        if folders:  # torch would leave the memory for such a record as it is
            return f'is damaged: its record {folders[0]} is marked as a folder'
        if opens:  # torch is stricter about the directory of records
            torch.load(path, map_location='cpu', mmap=True, weights_only=True)
    except pickle.UnpicklingError:
        pass
    except Exception as error:  # a torn file fails in whatever way the first wrong byte makes it
        return f'is not a complete checkpoint: cut short, or no PyTorch file ({_first_line(error)})'
    return None


def unpickling_message(path: object, error: pickle.UnpicklingError) -> str:
    """What to tell a person about a file that ``torch.load(weights_only=True)`` refused."""
    named = re.search(r'GLOBAL (\S+)|Unsupported class (\S+)', str(error))
    code_name = named[1] or named[2] if named else _pickled_name(path)
    if code_name is None:
        return _no_checkpoint(path)
    return (
        f'{path} holds more than tensors ({code_name}), and reading that could run code from the '
        'file; whoever trusts it can load it with torch.load(..., weights_only=False), save its state_dict() and '
        'convert that'
    )


def _no_checkpoint(path: object) -> str:
    return f'{path} is no checkpoint; a download may have stored an error page, look into it and get the file again'


def _pickled_name(path: object) -> str | None:
    """The first function or class that a bare pickle asks for; None: it asks for none, or is no pickle.

    Nothing of it is run. torch names it for the pickles that it writes itself, and older ones.
    """
    strings: list[str] = []
    try:
        with open(str(path), 'rb') as file:
            if file.read(1) != pickle.PROTO:
                return None
            file.seek(0)
            for opcode, argument, _ in pickletools.genops(file):
                if opcode.name == 'STACK_GLOBAL':
                    return '.'.join(strings[-2:])
                if isinstance(argument, str):
                    strings.append(argument)
    except (OSError, ValueError):  # no file of this machine, or a torn one
        pass
    return None


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0][:160] if lines else type(error).__name__


def check_destination(path: str | Path, force: bool = False) -> Path:
    """The path, if :func:`write_checkpoint` may write there.

    Raises:
        InputError: it exists and ``force`` is False, is a folder, or asks for another format.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        raise InputError(f'{path} is a folder; name the file to write, e.g. {path / "model.pth"}')
    if path.suffix not in ('.pth', '.pt'):
        raise InputError(f'{path} must end in .pth or .pt: that is the format that is written')
    if path.exists() and not force:
        raise InputError(f'{path} exists already; choose another name, or --force to replace it')
    return path


def write_checkpoint(
    path: str | Path,
    weights: Mapping[str, Tensor],
    meta: Mapping[str, Any],
    *,
    force: bool = False,
    root: str = 'state_dict',
) -> None:
    """Write ``{root: weights, 'meta': meta}`` such that it loads with ``weights_only=True``.

    Written beside and renamed into place, so that nobody ever sees half a file.

    Raises:
        InputError: see :func:`check_destination`, or the disk refuses.
    """
    path = check_destination(path, force)
    # clones: a view would bring its whole storage along
    tensors = {key: value.detach().cpu().clone().contiguous() for key, value in weights.items()}
    beside = path.with_name(f'.{path.name}.part')  # always the same, so that none is left by calls that were killed
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(beside, 'wb') as file:
            torch.save({root: tensors, 'meta': dict(meta)}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except (OSError, RuntimeError) as error:
        raise InputError(f'cannot write {path}: {_first_line(error)}; name another file, or make room') from error
    finally:
        beside.unlink(missing_ok=True)
