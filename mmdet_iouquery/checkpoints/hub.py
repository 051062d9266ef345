"""Detectors as folders to share: written, opened again, and sent to the Hugging Face Hub.

A folder holds ``config.py`` (:mod:`.flat_config`), ``model.safetensors`` (weights, and the names of the classes),
``README.md`` (:mod:`.model_card`) and, where there is one, ``model.onnx``. None of it is run when it is opened.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mmengine.config import Config
from torch import Tensor, nn

from iouquery_runtime import InputError as RuntimeInputError
from iouquery_runtime.backends import open_file
from iouquery_runtime.files import sha256

from ..config_files import model_name
from ..errors import InputError
from ..version import __version__
from .class_names import named_classes, plain_meta
from .convert import unwrap
from .detector import build_detector, check_fit
from .files import checkpoint_file, read_checkpoint
from .flat_config import flat_config, parse_flat_config, read_flat_config
from .folders import write_folder
from .model_card import WEIGHTS, Facts, check_license, model_card
from .prefix_map import is_of_training_alone
from .preprocessing import KEY, preprocessing_of_config
from .safetensors_file import read_notes, write_safetensors

CONFIG, CARD, ONNX = 'config.py', 'README.md', 'model.onnx'
FORMAT = 1
HUB_LINE = 'python -m pip install huggingface_hub'

_REPO = re.compile(r'[\w.-]+/[\w.-]+')


def save_pretrained(
    model: nn.Module | str | Path,
    folder: str | Path,
    *,
    license: str,
    config: Config | str | Path | None = None,
    metrics: Mapping[str, float] | None = None,
    command: str | None = None,
    onnx: str | Path | None = None,
    force: bool = False,
) -> bool:
    """Write a detector as a folder, whole or not at all.

    Args:
        model: a detector, or the checkpoint of one: of its EMA where it has one.
        folder: where to; other files in it stay as they are.
        license: of the weights, an identifier of the Hub such as ``apache-2.0``.
        config: of the detector; None: the model's own ``cfg``.
        metrics: numbers of an evaluation, for the README.
        command: what they were measured by.
        onnx: the model that ``iouquery export`` wrote of the same checkpoint and config, to lie beside.
        force: replace files of another model.

    Returns:
        Whether anything was written; False: the folder holds the same already.

    Raises:
        InputError: the weights are not the config's, or the classes have no names; the exported model is another; the
            config cannot be written as plain values; the folder holds another model; the disk refuses; safetensors is
            missing.
    """
    check_license(license)
    cfg = _config_of(model, config)
    if onnx is not None:
        _check_onnx(Path(onnx), cfg, None if isinstance(model, nn.Module) else model)
    weights, meta = _weights_of(model)
    text = flat_config(cfg)
    plain = parse_flat_config(text, Path(folder) / CONFIG)
    check_fit(build_detector(plain), weights, 'the detector' if isinstance(model, nn.Module) else model)
    dataset_meta = named_classes(meta.get('dataset_meta'), plain)
    _check_number(dataset_meta['classes'], plain)
    images = preprocessing_of_config(plain)
    notes = {'format': FORMAT, 'package_version': __version__, 'dataset_meta': dataset_meta}
    facts = Facts(
        name=model_name(cfg.filename or 'detector'),
        license=license,
        classes=dataset_meta['classes'],
        input_size=images.get('scale'),
        metrics=metrics or {},
        command=command,
        has_onnx=onnx is not None,
    )
    files: dict[str, Callable[[Path], object]] = {
        CONFIG: partial(_write_text, text),
        CARD: partial(_write_text, model_card(facts)),
        WEIGHTS: partial(
            write_safetensors, weights=weights, notes={**notes, **({KEY: meta[KEY]} if meta.get(KEY) else {})}
        ),
    }
    if onnx is not None:
        files[ONNX] = partial(shutil.copyfile, onnx)
    return write_folder(folder, files, absent=() if onnx is not None else (ONNX,), force=force)


def _check_onnx(path: Path, cfg: Config, checkpoint: str | Path | None) -> None:
    """Raise :class:`InputError` where an exported file is of another config or checkpoint (None: not known)."""
    try:
        values = open_file(path, 1, None, None).metadata.values
    except RuntimeInputError as error:
        raise InputError(str(error)) from error
    if path.suffix != '.onnx':
        raise InputError(f'{path} is not an ONNX file; name the .onnx that `iouquery export` wrote')
    if checkpoint is not None and values.get('checkpoint_sha256') != sha256(checkpoint_file(checkpoint)):
        of = values.get('checkpoint_sha256', '')[:16] or 'none that it names'
        raise InputError(
            f'{path} is not of {checkpoint}, but of another checkpoint (SHA-256 {of}); export this one with '
            '`iouquery export`'
        )
    config = values.get('config')
    if cfg.filename and config and config != Path(cfg.filename).name:
        raise InputError(
            f'{path} was exported with the config {config}, and {Path(cfg.filename).name} is saved; name one of them '
            'for both'
        )


def _write_text(text: str, path: Path) -> None:
    path.write_text(text, encoding='utf-8')


def _config_of(model: object, config: Config | str | Path | None) -> Config:
    config = getattr(model, 'cfg', None) if config is None else config
    if isinstance(config, (str, Path)):
        try:
            return Config.fromfile(config)
        except OSError as error:
            raise InputError(f'cannot read the config {config}: {error}; correct the path') from error
    if not isinstance(config, Config):
        raise InputError('give the config of the detector (config=...): the model does not carry it')
    return config


def _weights_of(model: nn.Module | str | Path) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
    """The weights of prediction, and what stands beside them: ``dataset_meta``, and the preprocessing as noted."""
    meta: Any
    if isinstance(model, nn.Module):
        weights, meta = model.state_dict(), {'dataset_meta': getattr(model, 'dataset_meta', None)}
    else:
        content = read_checkpoint(model)
        weights, meta = unwrap(content), content.get('meta')
    weights = {key: value for key, value in weights.items() if not is_of_training_alone(key)}
    return weights, meta if isinstance(meta, Mapping) else {}


def _check_number(classes: Sequence[str], cfg: Config) -> None:
    num_classes = (cfg.model.get('bbox_head') or {}).get('num_classes')
    if num_classes not in (None, len(classes)):
        raise InputError(f'the detector has {num_classes} classes, but {len(classes)} have names; name as many')


def from_pretrained(
    folder_or_repo: str | Path, *, revision: str | None = None, cache_dir: str | Path | None = None, api: Any = None
) -> nn.Module:
    """The detector of a folder, or of a repository on the Hub, in evaluation mode on the CPU.

    It has what mmdet's functions ask for: ``cfg`` and ``dataset_meta``. ``init_weights``, which mmengine's runner
    calls, leaves its weights as they are.

    Args:
        folder_or_repo: a folder that :func:`save_pretrained` has written, or ``USER/NAME``.
        revision: a branch, tag or commit of the repository; None: the newest.
        cache_dir: where downloads are kept; None: where huggingface_hub keeps them.
        api: a ``huggingface_hub.HfApi``, which may hold a token; None: one of whoever is logged in.

    Raises:
        InputError: there is no such folder or repository, it was written by something else or by a newer version, it
            is not whole, or its config names what is not installed.
    """
    folder = _fetched(folder_or_repo, revision, cache_dir, api)
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise InputError(
                f'{folder} has no {name}: it was not written by save_pretrained; convert weights of other projects '
                'with `iouquery convert`'
            )
    notes = _own_notes(folder)
    cfg = read_flat_config(folder / CONFIG)
    try:
        detector: Any = build_detector(cfg)
    except (TypeError, KeyError) as error:  # of an argument or a part that came later
        raise InputError(
            f'{folder} was written by mmdet_iouquery {notes.get("package_version")}, and {__version__}, which is here, '
            f'cannot build its detector: {_first_line(error)}; install the version that wrote it'
        ) from error
    weights = unwrap(read_checkpoint(folder / WEIGHTS))
    check_fit(detector, weights, folder / WEIGHTS)
    detector.load_state_dict(weights, strict=False)  # all that may be missing are batch counters
    for module in detector.modules():
        if hasattr(module, 'is_init'):
            module.is_init = True
    detector.cfg, detector.dataset_meta = cfg, plain_meta(notes['dataset_meta'])
    return detector.eval()


def _own_notes(folder: Path) -> dict[str, Any]:
    notes = read_notes(folder / WEIGHTS)
    if 'format' not in notes or 'dataset_meta' not in notes:
        raise InputError(
            f'{folder / WEIGHTS} does not name its classes: it was not written by save_pretrained; write it again with '
            'save_pretrained'
        )
    if notes['format'] != FORMAT:
        raise InputError(
            f'{folder} was written by mmdet_iouquery {notes.get("package_version")}, whose format {notes["format"]} is '
            f'unknown to {__version__}, which is here; upgrade mmdet_iouquery'
        )
    return notes


def _fetched(folder_or_repo: str | Path, revision: str | None, cache_dir: str | Path | None, api: Any) -> Path:
    folder = Path(folder_or_repo).expanduser()
    if folder.is_dir():
        return folder
    if isinstance(folder_or_repo, Path) or not _REPO.fullmatch(folder_or_repo):
        raise InputError(f'there is no folder {folder_or_repo}, and no repository is called so: name USER/NAME')
    api = api or _api(f'there is no folder {folder_or_repo}, and a repository')
    names = [CONFIG, WEIGHTS, CARD]
    try:
        return Path(api.snapshot_download(folder_or_repo, revision=revision, cache_dir=cache_dir, allow_patterns=names))
    except Exception as error:  # releases of the package have other errors of the network, and no common one
        raise InputError(
            f'cannot fetch {folder_or_repo}: {_first_line(error)}; check the name and the network'
        ) from error


def push_to_hub(
    folder: str | Path,
    repo: str,
    *,
    private: bool | None = None,
    message: str | None = None,
    force: bool = False,
    api: Any = None,
) -> bool:
    """Send a folder that :func:`save_pretrained` has written to a repository on the Hub, made where it is missing.

    Args:
        folder: its files of a model are sent, no others.
        repo: ``USER/NAME``.
        private: of a new repository; None: as the account has it.
        message: of the commit.
        force: go on where the repository holds other weights, which stay in its history.
        api: a ``huggingface_hub.HfApi``, which may hold a token; None: one of whoever is logged in.

    Returns:
        Whether anything was sent; False: the repository holds the same already.

    Raises:
        InputError: it is no such folder, the repository holds another model, huggingface_hub is missing, or the Hub
            refuses.
    """
    folder = Path(folder).expanduser()
    files = [name for name in (CONFIG, CARD, WEIGHTS, ONNX) if (folder / name).is_file()]
    if not {CONFIG, CARD, WEIGHTS} <= {*files}:
        raise InputError(f'{folder} was not written by save_pretrained; write it first')
    _own_notes(folder)
    if not _REPO.fullmatch(repo):
        raise InputError(f'a repository must be named USER/NAME, got {repo!r}')
    api = api or _api('a repository')
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        remote_files = {file.rfilename: file for file in api.model_info(repo, files_metadata=True).siblings}
        same = {name for name in files if name in remote_files and _same_file(folder / name, remote_files[name])}
    except Exception as error:  # see _fetched
        raise InputError(
            f'cannot reach {repo}: {_first_line(error)}; check the name, your token and the network'
        ) from error
    if same == {*files} and (ONNX in files or ONNX not in remote_files):
        return False
    if WEIGHTS in remote_files and WEIGHTS not in same and not force:
        raise InputError(
            f'{repo} holds other weights; choose another repository, or --force (force=True) to put these on top of '
            'them in its history'
        )
    try:
        api.upload_folder(
            repo_id=repo,
            folder_path=folder,
            allow_patterns=files,
            delete_patterns=[ONNX],
            commit_message=message or f'Upload {folder.absolute().name}',
        )
    except Exception as error:  # see _fetched
        raise InputError(
            f'cannot send {folder} to {repo}: {_first_line(error)}; check your token, your rights there and the network'
        ) from error
    return True


def _same_file(path: Path, remote: Any) -> bool:
    """Whether the Hub's file has the same content: by SHA-256 of a large one, by git's name of others' content."""
    content = path.read_bytes()
    if remote.lfs is not None:
        return hashlib.sha256(content).hexdigest() == remote.lfs.sha256
    return hashlib.sha1(b'blob %d\0' % len(content) + content).hexdigest() == remote.blob_id


def _api(purpose: str) -> Any:
    try:
        from huggingface_hub import HfApi
    except ImportError as error:
        raise InputError(f'{purpose} needs the package huggingface_hub: {HUB_LINE}') from error
    return HfApi()


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f'{type(error).__name__}: {lines[0][:160]}' if lines else type(error).__name__
