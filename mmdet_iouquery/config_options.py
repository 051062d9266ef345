"""Entries of a config: the class that one asks for, and overrides on a command line (``--cfg-options KEY=VALUE``)."""

from __future__ import annotations

import argparse
import difflib
import inspect
import json
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config, DictAction
from mmengine.runner import Runner

from .errors import InputError

_READ = {'default_scope', 'custom_imports', 'auto_scale_lr', 'strategy', 'tta_model', 'tta_pipeline', 'runner_type'}
_READ |= {'sharing_strategy'}  # by this package
_NAMED = 3  # differences that a message lists
_NEARLY = (
    0.92  # 'train_dataloder' is 0.97 near to 'train_dataloader'; 'models' is 0.91 near to 'model', and anyone's own
)


def type_name(node: Mapping[str, Any], key: str = 'type', default: str = '') -> str:
    """Name of the class that a config entry asks for, without scope. New-style configs give the class itself."""
    kind = node.get(key, default)
    return str(getattr(kind, '__name__', kind)).rpartition('.')[2]


def as_list(value: Any) -> list[Any]:
    """What a config gives as one entry or as several; None: there are none."""
    if isinstance(value, (list, tuple)):
        return list(value)
    return [] if value is None else [value]


def flattened(node: Any, where: str = '') -> dict[str, Any]:
    """Every value of nested containers by its dotted key, as JSON holds it."""
    if isinstance(node, Mapping) and node:
        items: Any = node.items()
    elif isinstance(node, (list, tuple)) and node:
        items = enumerate(node)
    else:
        # infinity and NaN, which JSON files do not have, by their names
        return {where: json.loads(json.dumps(node, default=repr), parse_constant=str)}
    return {k: v for key, value in items for k, v in flattened(value, f'{where}.{key}' if where else str(key)).items()}


def differences(
    before: Mapping[str, Any], asked: Mapping[str, Any], words: tuple[str, str] = ('there', 'asked for now')
) -> str:
    """Which settings differ, with the old and the new value of the first ones; empty: none does.

    Args:
        words: what is said of an old value, and of a new one.
    """
    keys = [key for key in {**asked, **before} if before.get(key) != asked.get(key)]
    named = [f'{key}: {before.get(key)!r} {words[0]}, {asked.get(key)!r} {words[1]}' for key in keys[:_NAMED]]
    more = f'; and {len(keys) - _NAMED} more' if len(keys) > _NAMED else ''
    return '; '.join(named) + more


def read_options(texts: Mapping[str, str] | None) -> dict[str, Any] | None:
    """The values of overrides as a command line has them, by mmengine's own rules; None: there are none.

    Raises:
        InputError: brackets in a value are not balanced.
    """
    if texts is None:
        return None
    action, read = DictAction(['--cfg-options'], 'options'), argparse.Namespace()
    for key, text in texts.items():
        try:
            action(argparse.ArgumentParser(), read, [f'{key}={text}'])
        except AssertionError as error:
            raise InputError(f'--cfg-options {key}={text}: its brackets are not balanced; close each one') from error
    return dict(getattr(read, 'options', {}))


def merge_options(cfg: Config, options: Mapping[str, Any] | None) -> None:
    """Put overrides into a config.

    What a file names for its own use, such as ``max_epochs = 12``, has done its work when the overrides come: a note
    says so.

    Raises:
        InputError: a key leads through something that has no such entry, or begins with a name that is all but one of
            mmengine's.
    """
    for key, value in (options or {}).items():
        name = key.partition('.')[0]
        meant = likely_misspelt(name)
        if meant is not None:
            raise InputError(f'--cfg-options {key}={value}: nothing reads {name}; did you mean {meant}?')
        if name not in top_level_names():
            why = 'the file has used its value already' if name in cfg else 'mmengine reads no such name'
            print(f'note: --cfg-options {key}={value} may change nothing: {why}')
        try:
            cfg.merge_from_dict({key: value})
        except (TypeError, KeyError, IndexError, AttributeError, ValueError) as error:
            hint = '; an entry of a list goes by its number, such as val_evaluator.0.ann_file'
            raise InputError(f'--cfg-options {key}={value}: the config takes no such entry ({error}){hint}') from error


def top_level_names() -> set[str]:
    """The names of a config that mmengine, mmdet and this package read themselves."""
    return {*inspect.signature(Runner.__init__).parameters, *_READ} - {'self', 'cfg'}


def likely_misspelt(name: str) -> str | None:
    """The name that mmengine reads which this one nearly is; None: it is one itself, or like none."""
    names = sorted(top_level_names())
    close = difflib.get_close_matches(name, names, n=1, cutoff=_NEARLY)
    return close[0] if close and name not in names else None
