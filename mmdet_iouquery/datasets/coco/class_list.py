"""The class list of a config, held against itself and against a file's categories."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ...errors import InputError


def check_class_list(classes: Sequence[str]) -> tuple[str, ...]:
    """The class list as a tuple.

    Raises:
        InputError: it is a bare string (whose letters would become classes), empty, not of strings, or repeats a name.
    """
    if isinstance(classes, str):
        raise InputError(
            f'classes={classes!r} is a string, whose {len(classes)} letters would be taken for classes; a tuple of one '
            f'needs a comma: classes=({classes!r},)'
        )
    names = tuple(classes) if isinstance(classes, Sequence) else ()
    if not names or not all(isinstance(name, str) for name in names):
        raise InputError(f"classes={classes!r} must be one or more names, e.g. classes=('person', 'car')")
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise InputError(f'classes has {name!r} {count} times; name each class once')
    return names


def check_classes_exist(path: Path, own: Sequence[str], names: Sequence[str]) -> None:
    """Raise InputError for names that are none of a file's ``own`` categories."""
    absent = [name for name in names if name not in set(own)]
    if not absent:
        return
    by_lower = {name.lower().strip(): name for name in own}
    close = difflib.get_close_matches(absent[0].lower().strip(), by_lower, n=1)
    hint = f'; did you mean {by_lower[close[0]]!r}?' if close else '.'
    raise InputError(
        f'{path} lacks {len(absent)} of the {len(names)} classes asked for: {listed(absent)}{hint} '
        f'It has {listed(own, 20)}; name those in metainfo=dict(classes=(...))'
    )


def check_label_order(path: Path, order: Sequence[str], names: Sequence[str]) -> None:
    """Raise InputError where labels, numbered by a file's categories in this order, get other names from the list."""
    if tuple(order) != tuple(names):
        raise InputError(
            f'the class list is not in the order of {path}, by which CocoDataset and CocoMetric number labels: '
            f'detections would get wrong names, without a word; write classes=({listed(order, len(order))}) for every '
            "set, or bring the file's categories into the order of the list"
        )


def listed(names: Sequence[object], shown: int = 5) -> str:
    """The first names or ids, for a message."""
    return ', '.join(map(repr, names[:shown])) + (', ...' if len(names) > shown else '')
