"""Lists of class names: COCO's, Objects365's, from a file, as they are typed, or those a model was trained on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..config_options import type_name
from ..errors import InputError
from .initializer import load_checkpoint

_AS_IN_COCO = {
    'wild bird': 'bird',
    'handbag/satchel': 'handbag',
    'luggage': 'suitcase',
    'skating and skiing shoes': 'skis',
    'baseball': 'sports ball',
    'bowl/basin': 'bowl',
    'orange/tangerine': 'orange',
    'dinning table': 'dining table',
    'moniter/tv': 'tv',
    'stuffed toy': 'teddy bear',
    'hair dryer': 'hair drier',
}
"""Objects365's names of classes that COCO calls otherwise (table ``obj365_ids`` of D-FINE's authors, its solver).
The other 69 of COCO's have the same name in both."""

UNUSED_ROW = 'no class'
"""Name of row 0 where labels are Objects365's ids, which begin at 1."""


def parse_class_names(text: str) -> list[str]:
    """Class names from a word for a data set, ``a,b,c`` or a ``.json`` file that holds names or COCO annotations.

    Words are ``coco``, its 80 names; ``objects365``, its 365 (version 2), COCO's where COCO has the class; and
    ``objects365-by-id``, the same behind a row without a class, as the authors of D-FINE and DEIM number them.
    A COCO file's classes are taken by ascending id.

    Raises:
        InputError: the file is not there or holds neither, or a data set is asked for without mmdet.
    """
    word = text.strip().lower()
    if word == 'coco':
        return _names_in_mmdet('CocoDataset')
    if word in ('objects365', 'objects365-by-id'):
        names = [_AS_IN_COCO.get(name.casefold(), name) for name in _names_in_mmdet('Objects365V2Dataset')]
        return [UNUSED_ROW, *names] if word.endswith('-by-id') else names
    if text.endswith('.json'):
        return _names_in_file(Path(text))
    return [name.strip() for name in text.split(',')]


def _names_in_mmdet(data_set: str) -> list[str]:
    try:
        from mmdet import datasets
    except ImportError as error:
        raise InputError(
            f'the names are those in mmdet, which cannot be imported ({error}); list them one by one'
        ) from error
    return [name.strip() for name in getattr(datasets, data_set).METAINFO['classes']]


def _names_in_file(path: Path) -> list[str]:
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise InputError(
            f'cannot read class names from {path}: {error}; name a file that can be read, or list the names'
        ) from error
    try:
        if isinstance(content, dict):
            content = [entry['name'] for entry in sorted(content['categories'], key=lambda entry: entry['id'])]
    except (KeyError, TypeError) as error:
        raise InputError(
            f'{path} has no "categories" with an "id" and a "name" each, as a COCO file has; add them, or list the '
            'names'
        ) from error
    if not isinstance(content, list) or not all(isinstance(name, str) for name in content):
        raise InputError(f'{path} must hold a list of class names, or COCO annotations with "categories"')
    return content


def trained_class_names(cfg: Mapping[str, Any], checkpoint: str | Path) -> tuple[str, ...]:
    """The names of :func:`named_classes`, by label, of a checkpoint file; empty: nothing names them.

    Raises:
        InputError: the checkpoint cannot be read.
    """
    meta = load_checkpoint(str(checkpoint)).get('meta') or {}
    return _named(meta.get('dataset_meta'), cfg).get('classes', ())


def class_notes(cfg: Mapping[str, Any], meta: Mapping[str, Any], checkpoint: str | Path) -> list[str]:
    """A sentence where a checkpoint names a class otherwise than the config's data, of as many classes.

    Args:
        cfg: whole.
        meta: of the checkpoint.
        checkpoint: its name.
    """
    noted = meta.get('dataset_meta')
    trained = plain_meta(noted).get('classes', ()) if isinstance(noted, Mapping) else ()
    own = _dataset_meta_of(cfg).get('classes', ())
    if len(trained) != len(own):  # a model of another number of classes is refused; or one of them names none
        return []
    return [
        f"class {label} is {name!r} in {checkpoint} and {other!r} in the config's data; unless they are the same, "
        'iouquery convert --classes gives each class the row of its name'
        for label, (name, other) in enumerate(zip(trained, own))
        if name.casefold() != other.casefold()
    ][:1]


def named_classes(noted: object, cfg: Mapping[str, Any]) -> dict[str, Any]:
    """What a model is told of its classes: ``classes``, names by label, and maybe ``palette``, colours as tuples.

    Args:
        noted: the ``dataset_meta`` of a checkpoint or model, which comes first, as in mmdet's ``init_detector``.
        cfg: a config, whose data set for testing, validation or training comes next.

    Raises:
        InputError: neither names them.
    """
    meta = _named(noted, cfg)
    if not meta:
        raise InputError(
            "neither the checkpoint nor the config's data sets name the classes; give the config's test_dataloader a "
            'metainfo=dict(classes=(...))'
        )
    return meta


def _named(noted: object, cfg: Mapping[str, Any]) -> dict[str, Any]:
    return plain_meta(noted if isinstance(noted, Mapping) else {}) or plain_meta(_dataset_meta_of(cfg))


def _dataset_meta_of(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """``metainfo`` of a data set, with what its class has by itself; empty: none names classes."""
    from mmdet.registry import DATASETS

    for loader in ('test_dataloader', 'val_dataloader', 'train_dataloader'):
        node = (cfg.get(loader) or {}).get('dataset')
        while isinstance(node, Mapping):
            kind = DATASETS.get(type_name(node)) if type_name(node) else None
            meta = {**getattr(kind, 'METAINFO', {}), **(node.get('metainfo') or {})}
            if 'classes' in meta:
                return plain_meta(meta)
            node = node.get('dataset')
    return {}


def plain_meta(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Of a ``dataset_meta`` what :func:`named_classes` gives; empty: it names none."""
    classes, palette = meta.get('classes'), meta.get('palette')
    if isinstance(classes, str) or not classes:
        return {}
    plain: dict[str, Any] = {'classes': tuple(str(name) for name in classes)}
    if isinstance(palette, (list, tuple)):
        plain['palette'] = [tuple(int(value) for value in colour) for colour in palette]
    return plain
