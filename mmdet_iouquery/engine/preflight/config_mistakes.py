"""Mistakes in a config that surface as exceptions of other packages: reported in a sentence that names the entry."""

from __future__ import annotations

import difflib
import inspect
import re
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine.hooks import Hook
from mmengine.registry import Registry
from mmengine.runner import BaseLoop

from ...compat import Building, calls
from ...config_options import type_name
from ...errors import InputError, RunError
from ..stop_reasons import DISK_FAULTS

SECTIONS = (
    'model',
    'train_dataloader',
    'train_cfg',
    'optim_wrapper',
    'param_scheduler',
    'val_dataloader',
    'val_evaluator',
    'val_cfg',
    'test_dataloader',
    'test_evaluator',
    'test_cfg',
    'default_hooks',
    'custom_hooks',
    'visualizer',
    'log_processor',
    'strategy',
    'model_wrapper_cfg',
)
"""Entries that mmengine builds something from; others of a config file are names that it uses itself."""
_LONGEST = 500
_UNEXPECTED = re.compile(r"unexpected keyword argument '(\w+)'")


@contextmanager
def named_mistakes(
    cfg: Mapping[str, Any],
    stage: str,
    *,
    sections: Sequence[str] = SECTIONS,
    facts: Callable[[Exception], Iterable[str]] | None = None,
    only: Callable[[Exception], bool] | None = None,
) -> Iterator[None]:
    """Turn any exception inside into an InputError that names the config's entry it comes from.

    What the project itself raises for a person to read, a full disk and an interrupt pass as they are. The traceback of
    anything else goes to a file of the system's temporary folder: it may be a fault of the code after all.

    Args:
        stage: what is done inside, as a subject: 'building the run'.
        sections: the entries that can be concerned.
        facts: called with the exception; what it gives is put behind the message.
        only: called with the exception, which passes as it is where this is false; None: none does so.

    Raises:
        InputError: with the exception as its cause.
    """
    try:
        yield
    except RunError:
        raise
    except InputError as error:
        entry = '' if only and not only(error) else entry_of(error, cfg, sections)
        if not entry or any(section in str(error) for section in SECTIONS):
            raise
        raise InputError(f'{entry}: {error}') from error
    except Exception as error:
        _raise_interrupt_behind(error)
        if (isinstance(error, OSError) and error.errno in DISK_FAULTS) or (only and not only(error)):
            raise
        entry = entry_of(error, cfg, sections)
        where = f' fails at {entry}' if entry else ' fails'
        sentences = _not_registered(error) or [text_of(error), *_remedies(error)]
        parts = [f'{stage}{where}: {sentences[0]}', *sentences[1:], *(facts(error) if facts else ())]
        raise InputError('; '.join(parts) + _traceback_file(error)) from error


def _raise_interrupt_behind(error: BaseException) -> None:
    """mmengine turns whatever comes in its layout of a config into a SyntaxError, Ctrl-C and SIGTERM too."""
    behind = error.__context__
    while behind is not None:
        if isinstance(behind, (KeyboardInterrupt, SystemExit)):
            raise behind
        behind = behind.__context__


def while_starting(error: Exception) -> bool:
    """Whether an exception out of a runner's ``train`` or ``test`` comes from before its loop has taken up work."""
    through = calls(error)
    for outer, inner in zip(through, [*through[1:], None]):
        if isinstance(outer.owner, BaseLoop) and outer.function == 'run':
            hook = inner.arguments.get('fn_name') if inner is not None else None
            return hook in ('before_train', 'before_test')
    return True


def text_of(error: BaseException) -> str:
    """One line: the kind of an exception and what it says; the line of code where it says nothing."""
    arguments = error.args
    text = str(arguments[0]) if isinstance(error, KeyError) and len(arguments) == 1 else str(error)
    text = ' '.join(text.split())
    if not text:
        frames = traceback.extract_tb(error.__traceback__)
        text = f'at {frames[-1].line!r} in {Path(frames[-1].filename).name}' if frames else 'without a word'
    if len(text) > _LONGEST:
        text = f'{text[:_LONGEST]} ...'
    return f'{type(error).__name__}: {text}'


def entry_of(error: BaseException, cfg: Mapping[str, Any], sections: Sequence[str] = SECTIONS) -> str:
    """Dotted key of the entry whose object an exception comes from; '' where that is not to be seen.

    Followed from the outermost function inwards: one belongs to an entry below the last one when it builds an object
    from it, or when it is a method of an object of the entry's type. Of a single section at least that is named.
    """
    whole: Mapping[str, Any] = {name: cfg[name] for name in sections if cfg.get(name) is not None}
    entry, node = sections[0] if len(sections) == 1 else '', whole
    for call in calls(error):
        above = '' if node is whole else entry
        if call.building is None:
            match = _of_class(node, call.owner, above)
            if match is None and isinstance(call.owner, Hook):  # called by a loop, which stands beside it
                match = _of_class(whole, call.owner)
        else:  # a loop builds its data loader, which stands beside it
            match = _most_alike(node, call.building.cfg, above) or _most_alike(whole, call.building.cfg)
        if match is not None:
            entry, node = match
    return entry


def entries(node: Any, where: str = '') -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every dict below a part of a config with its dotted key, outer ones first."""
    if isinstance(node, Mapping):
        if where:
            yield where, node
        for key, value in node.items():
            yield from entries(value, f'{where}.{key}' if where else str(key))
    elif isinstance(node, (list, tuple)):
        for index, value in enumerate(node):
            yield from entries(value, f'{where}[{index}]')


def _most_alike(node: Any, wanted: Mapping[str, Any], where: str = '') -> tuple[str, Mapping[str, Any]] | None:
    """The entry of the same type with most items in common: what is built has further items, handed down to it."""
    best, most = None, 0
    for key, entry in entries(node, where):
        if type_name(entry) != type_name(wanted):
            continue
        common = sum(1 for key, value in entry.items() if key in wanted and _equal(wanted[key], value))
        if common > most and (common == len(entry) or 'type' in entry):
            best, most = (key, entry), common
    return best


def _equal(first: Any, other: Any) -> bool:
    try:
        return bool(first == other)
    except (ValueError, RuntimeError):  # of arrays and tensors
        return False


def _of_class(node: Any, owner: Any, where: str = '') -> tuple[str, Mapping[str, Any]] | None:
    name = type(owner).__name__
    return next(((key, entry) for key, entry in entries(node, where) if type_name(entry) == name), None)


def _not_registered(error: BaseException) -> list[str]:
    """Of a name that mmengine's registry does not know: that, the names most alike, and how it gets to know one."""
    building = next((call.building for call in calls(error)[-1:]), None)
    if not isinstance(error, KeyError) or building is None or building.kind is not None:
        return []
    name, registry = building.type, building.registry
    if not isinstance(name, str) or not isinstance(registry, Registry):
        return []
    where, known = f'{registry.scope}::{registry.name}', set()
    while registry is not None:
        known |= set(registry.module_dict)
        registry = registry.parent
    return [
        f'no type {name!r} is registered ({where})',
        *alike(name.rpartition('.')[2], sorted(known)),
        "a class of your own is known once its module is imported: custom_imports=dict(imports=['package.module'])",
    ]


def _remedies(error: BaseException) -> Iterator[str]:
    building = next((call.building for call in reversed(calls(error)) if call.building), Building({}))
    unexpected = _UNEXPECTED.search(str(error))
    if isinstance(error, TypeError) and unexpected and callable(building.kind):
        known = [*inspect.signature(building.kind).parameters]
        yield from [*alike(unexpected[1], known)] or [f'{building.type} takes {", ".join(known)}']
    if isinstance(error, TypeError) and str(error).endswith('() takes no arguments'):
        names = [key for key in building.cfg if key != 'type' and not key.startswith('_')]
        yield f'remove {", ".join(names)} from the entry'
    if 'option needs num_workers > 0' in str(error):
        yield 'set persistent_workers=False there, or num_workers to 1 or more'
    if isinstance(error, ImportError):
        yield 'install what is missing, or take the entry out of the config'


def alike(name: str, known: Sequence[str]) -> Iterator[str]:
    """A question after the known names most like a misspelt one; nothing where none is."""
    close = difflib.get_close_matches(name, known, n=3)
    if close:
        yield f'did you mean {" or ".join(close)}?'


def _traceback_file(error: BaseException) -> str:
    """Keep the traceback, outside the work folder, which stays as it was; says where, or nothing where it cannot be."""
    try:
        descriptor, path = tempfile.mkstemp('.txt', 'iouquery-traceback-')
        with open(descriptor, 'w', encoding='utf-8') as file:
            file.writelines(traceback.format_exception(type(error), error, error.__traceback__))
    except OSError:
        return ''
    return f' (traceback: {path})'
