"""Docstrings as Markdown.

They are written for who reads the source: names in double backticks, references as Sphinx has them
(``:class:`Memory```). For the site, references become links: to the entry in the reference, where there is one, or else
to the lines that define the name. A reference to what is not there is an error.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

from . import code

_ROLE = re.compile(r':(?:mod|class|func|meth|attr|data):`([^`]+)`')
_ARGUMENTS = re.compile(r'^Args:\n(?: .*\n?|\n)+', re.M)
_TABLE = re.compile(r'^(?P<rule>=+(?: +=+)+)\n(?P<head>.*?)\n(?P=rule)\n(?P<rows>.*?)\n(?P=rule)$', re.M | re.S)


class Markdown(griffe.Extension):
    """Changes every docstring of a package that was loaded, and says to the templates where each thing is from."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Change them all."""
        names = {entry.source.path: entry.names for entry in code.registered()}
        for obj in code.every(pkg):
            if obj.docstring is not None:
                obj.docstring.value = text_of(code.objects()[obj.path])
            obj.extra['site'] = dict(
                names=names.get(obj.path, {}), path=code.source_path(obj), link=code.source_link(obj)
            )


def text_of(obj: griffe.Object) -> str:
    """The docstring of something that has one; of a class, with the arguments that only its base describes."""
    text = markdown(obj.docstring.value, obj)
    if obj.is_class and not _ARGUMENTS.search(text):
        for base in obj.mro():
            if base.docstring and (match := _ARGUMENTS.search(markdown(base.docstring.value, base))):
                return f'{text}\n\n{match[0]}'
    return text


def markdown(text: str, scope: griffe.Object) -> str:
    """The text of a docstring of ``scope``.

    Raises:
        NameError: it refers to what is not there.
    """
    text = _TABLE.sub(_table, text)
    text = re.sub(r'^::\n\n?', '', text, flags=re.M)
    text = re.sub(r'::$', ':', text, flags=re.M)
    return _ROLE.sub(lambda match: _reference(match[1], scope), text)


def _reference(name: str, scope: griffe.Object) -> str:
    shown = name.rsplit('.', 1)[-1] if name.startswith('~') else name.lstrip('.')
    name = name.lstrip('~')
    try:
        obj = code.meaning(name, scope)
    except NameError as error:
        raise NameError(f'{code.source_path(scope)}, docstring of {scope.path}: {error}') from None
    if obj is None:
        return f'`{shown}`'
    documented = code.documented()
    if obj.path in documented:
        return f'[`{shown}`][{documented[obj.path]}]'
    return f'[`{shown}`]({code.source_link(obj)})'


def _table(match: re.Match[str]) -> str:
    """A table of reStructuredText as Markdown's."""
    columns = [column.span() for column in re.finditer('=+', match['rule'])]
    columns[-1] = (columns[-1][0], 10**6)

    def cells(line: str) -> list[str]:
        return [line[start:end].strip() for start, end in columns]

    rows: list[list[str]] = []
    for line in match['rows'].splitlines():
        if line[: columns[0][1]].strip():
            rows.append(cells(line))
        else:  # goes on with the row above
            rows[-1] = [f'{above} {below}'.strip() for above, below in zip(rows[-1], cells(line))]
    lines = [cells(match['head']), ['---'] * len(columns), *rows]
    return '\n' + '\n'.join(f'| {" | ".join(line)} |' for line in lines) + '\n'
