"""Names say what a value is; those of ``EMPTY`` could be of any."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from structure import ROOT

EMPTY = {'found', 'mine', 'one', 'place', 'together', 'told'}
KEYS = ('mmdet_iouquery/apps/doctor/checkpoint.py', 'place')  # of the JSON that programs read
FOLDERS = ('mmdet_iouquery', 'iouquery_runtime', 'tools', 'tests', 'docs', 'examples', '.ci')


def names(text: str) -> Iterator[tuple[int, str]]:
    """Line and name of every variable and argument of a module."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg


def test_names_are_those_that_are_stored() -> None:
    text = 'def f(a, *, b=c):\n    d, e.f = g\n    return [h for h in (i := j)]'
    assert sorted(names(text)) == [(1, 'a'), (1, 'b'), (2, 'd'), (3, 'h'), (3, 'i')]


def test_no_variable_or_argument_has_an_empty_name() -> None:
    """Write what the value is: ``boxes``, ``loss``, ``actual`` and ``expected``, ``first`` and ``second``."""
    files = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob('*.py'))]
    assert len(files) > 500
    empty = [
        f'{path.relative_to(ROOT)}:{line}: {name}'
        for path in files
        for line, name in names(path.read_text(encoding='utf-8'))
        if name in EMPTY and (path.relative_to(ROOT).as_posix(), name) != KEYS
    ]
    assert not empty, 'say what the value is:\n' + '\n'.join(empty)
