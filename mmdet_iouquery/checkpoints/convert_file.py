"""From a checkpoint file of one project to a file for another, with an account of every key."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import InputError
from ..version import __version__
from .class_head import select_classes
from .convert import SOURCES, TARGETS, Conversion, convert_accounted, convert_back
from .files import check_destination, read_checkpoint, write_checkpoint
from .preprocessing import KEY, preprocessing_of

_ROOTS = {'mmdet': 'state_dict', 'rtdetr': 'model'}


class Summary(NamedTuple):
    """What a conversion did; as a string, for a person to read."""

    source: str
    target: str
    destination: Path
    conversion: Conversion
    num_written: int
    kept: list[str]
    fresh: list[str]

    def __str__(self) -> str:
        done = self.conversion
        where = f' from {done.wrapper!r}' if done.wrapper else ''
        lines = [f'{self.destination}: {done.num_read} keys read{where}, {self.num_written} written ({self.target})']
        lines += [f'  dropped {len(keys)}: {", ".join(keys)} ({reason})' for reason, keys in done.dropped.items()]
        if done.num_joined:
            lines.append(f'  joined {done.num_joined} keys of q, k and v projections, three into one')
        if done.left:
            lines.append(f'  not weights to convert, left behind: {", ".join(done.left)}')
        if self.kept or self.fresh:
            lines.append(f'  classes kept: {", ".join(self.kept) or "none"}')
            lines.append(f'  classes started afresh: {", ".join(self.fresh) or "none"}')
        return '\n'.join(lines)


def convert_file(
    source_path: str | Path,
    destination: str | Path,
    source: str,
    *,
    target: str = 'mmdet',
    source_classes: Sequence[str] | None = None,
    target_classes: Sequence[str] | None = None,
    force: bool = False,
) -> Summary:
    """Convert a file.

    Args:
        source_path: see :func:`~mmdet_iouquery.checkpoints.files.read_checkpoint`.
        destination: the ``.pth`` or ``.pt`` file to write.
        source: whose names the file has, one of :data:`~mmdet_iouquery.checkpoints.SOURCES`.
        target: whose names to write, one of :data:`~mmdet_iouquery.checkpoints.TARGETS`.
        source_classes: names of the classes in the file, in the order of its rows.
        target_classes: names of the classes to write weights for; None: those of the file.
        force: replace ``destination`` if it exists.

    Raises:
        InputError: see :func:`read_checkpoint`, :func:`convert`, :func:`select_classes`, :func:`write_checkpoint`.
    """
    path = check_destination(destination, force)
    _check_request(source, target, source_classes, target_classes)
    content = read_checkpoint(source_path)
    conversion = convert_accounted(content, source)
    weights = conversion.weights
    kept: list[str] = []
    fresh: list[str] = []
    if source_classes is not None and target_classes is not None:
        weights, kept, fresh = select_classes(weights, source_classes, target_classes)
    weights = convert_back(weights, target)
    meta = _meta(source_path, source, conversion.wrapper, target_classes)
    preprocessing = preprocessing_of(source, content)
    if preprocessing:
        meta[KEY] = preprocessing
    write_checkpoint(path, weights, meta, force=force, root=_ROOTS[target])
    return Summary(source, target, path, conversion, len(weights), kept, fresh)


def _check_request(
    source: str, target: str, source_classes: Sequence[str] | None, target_classes: Sequence[str] | None
) -> None:
    """Refuse what cannot work before anything is read."""
    if source not in SOURCES:
        raise InputError(f'unknown source {source!r}; choose one of {", ".join(SOURCES)}')
    if target not in TARGETS:
        raise InputError(f'cannot write for {target!r}; choose one of {", ".join(TARGETS)}')
    if source == 'rtdetr_backbone' and target != 'mmdet':
        raise InputError('a bare backbone can only be written for mmdet; leave --to away')
    if (source_classes is None) != (target_classes is None):
        raise InputError('--classes and --source-classes belong together: classes to write, and classes of the file')


def _meta(path: str | Path, source: str, wrapper: str, classes: Sequence[str] | None) -> dict[str, Any]:
    """Plain strings and numbers, and mmdet's ``dataset_meta`` where the class names are known."""
    meta: dict[str, Any] = {'converter': f'mmdet_iouquery {__version__}', 'source': source}
    meta['source_file'] = Path(path).name
    if wrapper:
        meta['source_weights'] = wrapper
    if classes is not None:
        meta['dataset_meta'] = {'classes': tuple(classes)}
    return meta
