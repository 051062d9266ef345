"""From a checkpoint file of one project to a file for another, with an account of every key."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config

from ..choices import AUTHORS, SOURCES, TARGETS
from ..config_options import type_name
from ..errors import InputError
from ..file_io import checksum
from ..version import __version__
from .class_head import select_classes
from .class_names import named_classes, plain_meta
from .convert import TRAINING_ALONE, Conversion, convert_accounted, convert_back, left_out
from .files import check_destination, checkpoint_file, damage, read_checkpoint, read_meta, write_checkpoint
from .model_values import model_notes, training_config
from .preprocessing import KEY, preprocessing_of, preprocessing_of_config
from .safetensors_file import read_notes
from .transformers_folder import FILES, to_transformers, write_transformers

_ROOTS = {'mmdet': 'state_dict', **dict.fromkeys(AUTHORS, 'model')}


class Summary(NamedTuple):
    """What a conversion did; as a string, for a person to read."""

    source: str
    target: str
    destination: Path
    conversion: Conversion
    num_written: int
    kept: list[str]
    fresh: list[str]
    unread: bool = False
    """Whether the target needs what the training's config says, and the file notes one that cannot be read."""
    notes: Sequence[str] = ()

    def __str__(self) -> str:
        done = self.conversion
        where = f' from {done.wrapper!r}' if done.wrapper else ''
        lines = [f'{self.destination}: {done.num_read} keys read{where}, {self.num_written} written ({self.target})']
        lines += [f'  dropped {len(keys)}: {", ".join(keys)} ({reason})' for reason, keys in done.dropped.items()]
        if done.num_joined:
            lines.append(f'  joined {done.num_joined} keys of projections that are one here')
        if self.unread:
            lines.append(
                '  the config that the file notes is not one of plain values, and is not run: input size and sampling '
                "points are the authors' for COCO where the file does not note them elsewhere"
            )
        if done.left:
            lines.append(f'  not weights to convert, left behind: {", ".join(done.left)}')
        if self.kept or self.fresh:
            lines.append(f'  classes kept: {", ".join(self.kept) or "none"}')
            lines.append(f'  classes started afresh: {", ".join(self.fresh) or "none"}')
        lines += [f'  note: {note}' for note in self.notes]
        return '\n'.join(lines)


def convert_file(
    source_path: str | Path,
    destination: str | Path,
    source: str,
    *,
    target: str = 'mmdet',
    source_classes: Sequence[str] | None = None,
    target_classes: Sequence[str] | None = None,
    config: Config | None = None,
    force: bool = False,
) -> Summary | None:
    """Convert a file.

    Args:
        source_path: see :func:`~mmdet_iouquery.checkpoints.files.read_checkpoint`.
        destination: the ``.pth`` or ``.pt`` file to write; the folder, where ``target`` is transformers.
        source: whose names the file has, one of :data:`~mmdet_iouquery.checkpoints.SOURCES`.
        target: whose names to write, one of :data:`~mmdet_iouquery.checkpoints.TARGETS`.
        source_classes: names of the classes in the file, in the order of its rows; None: those that it notes.
        target_classes: names of the classes to write weights for; None: those of the file.
        config: of the detector, whole; for transformers, whose files describe the model.
        force: replace ``destination`` if it exists.

    Returns:
        What was done; None: ``destination`` holds the outcome of this very conversion already.

    Raises:
        InputError: see :func:`read_checkpoint`, :func:`convert`, :func:`select_classes`, :func:`write_checkpoint`,
            :func:`to_transformers`; ``destination`` holds something else.
    """
    _check_request(source, target, source_classes, target_classes, config)
    if target_classes is not None and source_classes is None:
        source_classes = _classes_in(checkpoint_file(source_path))
    request = _request(checkpoint_file(source_path), source, target, source_classes, target_classes)
    if config is not None:
        request['config_checksum'] = _config_checksum(config)
    path = _destination(destination, target)
    existing = [file.exists() for file in ([path / name for name in FILES] if target == 'transformers' else [path])]
    if any(existing) and not force:
        _require_same_request(path, request)
        if all(existing):
            return None
    content = read_checkpoint(source_path)
    conversion = convert_accounted(content, source)
    weights = conversion.weights
    kept: list[str] = []
    fresh: list[str] = []
    if source_classes is not None and target_classes is not None:
        weights, kept, fresh = select_classes(weights, source_classes, target_classes)
    meta: dict[str, Any] = {'converter': f'mmdet_iouquery {__version__}', **request}
    if conversion.wrapper:
        meta['source_weights'] = conversion.wrapper
    noted = content.get('meta')
    noted = noted if isinstance(noted, Mapping) else {}
    dataset_meta = noted.get('dataset_meta')
    if target_classes is not None:
        meta['dataset_meta'] = {'classes': tuple(target_classes)}
    elif isinstance(dataset_meta, Mapping) and (named := plain_meta(dataset_meta)):
        meta['dataset_meta'] = named
    if config is not None:
        classes = target_classes or named_classes(dataset_meta, config)['classes']
        model = to_transformers(weights, config, classes, source_path)
        write_transformers(path, model, meta, force=force)
        conversion = conversion._replace(dropped={**conversion.dropped, **model.dropped})
        notes = model_notes(config, noted, source_path)
        return Summary(source, target, path, conversion, len(model.weights), kept, fresh, notes=notes)
    if without := left_out(weights, target):
        conversion = conversion._replace(dropped={**conversion.dropped, TRAINING_ALONE: without})
    trained = training_config(noted)
    unread = trained is None and target in AUTHORS
    trained = trained or Config()
    preprocessing = {
        **(preprocessing_of(source, content, checkpoint_file(source_path)) or {}),
        **preprocessing_of_config(trained),
    }
    num_points, input_size = _num_points(trained), _input_size(preprocessing)
    weights = convert_back(weights, target, num_points=num_points, input_size=input_size)
    if preprocessing:
        meta[KEY] = preprocessing
    write_checkpoint(path, weights, meta, force=force, root=_ROOTS[target])
    return Summary(source, target, path, conversion, len(weights), kept, fresh, unread, _settings(trained, target))


def _num_points(cfg: Config) -> Sequence[int] | int | None:
    """Sampling points a head, as a config says; None: it does not."""
    decoder = _decoder(cfg)
    return decoder.get('num_points', 4) if decoder else None


def _decoder(cfg: Config) -> Mapping[str, Any]:
    head = dict(cfg.get('model') or {}).get('bbox_head')
    decoder = head.get('decoder') if isinstance(head, Mapping) else None
    return decoder if isinstance(decoder, Mapping) else {}


def _settings(trained: Config, target: str) -> list[str]:
    """What no weight tells of a decoder, so that a config of the target's has to."""
    decoder = _decoder(trained)
    settings = [f'sampling is {decoder["sampling"]!r}'] if decoder.get('sampling', 'bilinear') != 'bilinear' else []
    if decoder.get('act_cfg'):
        settings.append(f'the activation is {type_name(decoder["act_cfg"])}')
    if not settings or target not in AUTHORS:
        return []
    return [f'the weights do not tell that {" and ".join(settings)} in the decoder: the config of {target} has to']


def _input_size(preprocessing: Mapping[str, Any]) -> tuple[int, int] | None:
    """Height and width that all images are resized to; None: they are not."""
    if 'scale' not in preprocessing or preprocessing.get('keep_ratio'):
        return None
    width, height = preprocessing['scale']
    return height, width


def _check_request(
    source: str,
    target: str,
    source_classes: Sequence[str] | None,
    target_classes: Sequence[str] | None,
    config: object,
) -> None:
    """Refuse what cannot work before anything is read."""
    if source not in SOURCES:
        raise InputError(f'unknown source {source!r}; choose one of {", ".join(SOURCES)}')
    if target not in TARGETS:
        raise InputError(f'cannot write for {target!r}; choose one of {", ".join(TARGETS)}')
    if source.endswith('_backbone') and target != 'mmdet':
        raise InputError('a bare backbone can only be written for mmdet; leave --to out')
    if target_classes is None and source_classes is not None:
        raise InputError('--source-classes are those of the file; give --classes, those to write, as well')
    if (target == 'transformers') != (config is not None):
        raise InputError(
            '--config and --to transformers belong together; give both: the files of transformers describe the model, '
            'and the config is where that is read'
        )


def _classes_in(path: Path) -> Sequence[str]:
    """The names that a training or a conversion has noted in a file."""
    meta = read_notes(path) if path.suffix == '.safetensors' else read_meta(path)
    noted = meta.get('dataset_meta') if isinstance(meta, Mapping) else None
    names = plain_meta(noted).get('classes') if isinstance(noted, Mapping) else None
    if not names:
        raise InputError(f'{path} does not name its classes; give --source-classes, in the order of its rows')
    return [*names]


def _destination(destination: str | Path, target: str) -> Path:
    """The path, if it can be that of the target's file or folder."""
    if target != 'transformers':
        return check_destination(destination, force=True)
    path = Path(destination).expanduser()
    if path.suffix in ('.pth', '.pt', '.safetensors') or path.is_file():
        raise InputError(f'{path} names a file; name a folder, as transformers reads, such as {path.with_suffix("")}')
    return path


def _config_checksum(config: Config) -> str:
    plain = json.dumps(config.to_dict(), default=str, sort_keys=True)
    return hashlib.sha256(plain.encode()).hexdigest()[:32]


def _request(
    path: Path,
    source: str,
    target: str,
    source_classes: Sequence[str] | None,
    target_classes: Sequence[str] | None,
) -> dict[str, Any]:
    """What a conversion is asked for, as the written file notes it: plain strings and lists."""
    request: dict[str, Any] = {'source_file': path.name, 'source_checksum': checksum(path), 'source': source}
    request['target'] = target
    if source_classes is not None and target_classes is not None:
        request.update(source_classes=list(source_classes), target_classes=list(target_classes))
    return request


def _require_same_request(path: Path, request: Mapping[str, Any]) -> None:
    """Raise :class:`InputError` where an existing file is not the outcome of the same request."""
    if path.is_dir():
        weights = path / 'model.safetensors'
        notes: Mapping[str, Any] = read_notes(weights) if weights.is_file() else {}
    else:
        notes = read_meta(path) if damage(path) is None else {}
    if 'source_checksum' not in notes:
        raise InputError(f'{path} exists already; choose another name, or --force to replace it')
    for key in {**request, 'source_classes': None, 'target_classes': None, 'config_checksum': None}:
        if notes.get(key) != request.get(key):
            raise InputError(
                f'{path} exists already, of another conversion ({key}: {notes.get(key)!r} there, {request.get(key)!r} '
                'asked for now); choose another name, or --force to replace it'
            )
