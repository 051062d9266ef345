"""Texts with their values left open: a :class:`Slot` is a value, a :class:`Choice` one of several texts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Union

_MOST = 40  # characters of alternatives that stand within the text, twice as many where they have no name
_UNNAMED = 'text'
_WORD = re.compile(r'[A-Za-z]{2,}')


@dataclass(frozen=True)
class Slot:
    """A value that a text is filled with."""

    name: str


@dataclass(frozen=True)
class Choice:
    """One of several texts; ``name`` may be empty."""

    name: str
    options: tuple[Template, ...]


Template = tuple[Union[str, Slot, Choice], ...]


def shown(template: Template) -> str:
    """The text for a reader: ``{path}`` is a value, ``[...]`` may be left out, ``(a | b)`` is one of two."""
    return ''.join(piece if isinstance(piece, str) else _open(piece) for piece in template)


def fixed_words(template: Template) -> list[str]:
    """Words that are always there, or in all of a choice's texts but an empty one."""
    return _WORD.findall(' '.join(piece for piece in template if isinstance(piece, str)))


def described(template: Template) -> Iterator[tuple[str, list[str]]]:
    """Values of a shown text that are one of several texts, each with these."""
    for piece in template:
        if isinstance(piece, Choice):
            if not _fits(piece):
                yield piece.name or _UNNAMED, [shown(option) for option in piece.options if says(option)]
            for option in piece.options:
                yield from described(option)


def pattern(template: Template) -> str:
    """A regular expression for the texts that are made of a template."""
    return ''.join(_pattern(piece) for piece in template)


def _pattern(piece: str | Slot | Choice) -> str:
    if isinstance(piece, str):
        return re.escape(piece)
    if isinstance(piece, Slot):
        return r'[\s\S]*?'
    return f'(?:{"|".join(pattern(option) for option in piece.options)})'


def _open(piece: Slot | Choice) -> str:
    if isinstance(piece, Slot) or not _fits(piece):
        return f'{{{piece.name or _UNNAMED}}}'
    texts = [shown(option) for option in piece.options if option]
    return f'[{" | ".join(texts)}]' if () in piece.options else f'({" | ".join(texts)})'


def _fits(choice: Choice) -> bool:
    length = len(' | '.join(shown(option) for option in choice.options))
    return length <= (_MOST if choice.name else 2 * _MOST)


def joined(*templates: Template) -> Template:
    """Templates one after the other."""
    pieces: list[str | Slot | Choice] = []
    for piece in (piece for template in templates for piece in template):
        if isinstance(piece, str) and pieces and isinstance(pieces[-1], str):
            pieces[-1] += piece
        elif piece:
            pieces.append(piece)
    return tuple(pieces)


def one_of(name: str, options: Iterable[Template]) -> Template:
    """A choice; a slot where none of the options says anything."""
    several: dict[Template, None] = {}
    for option in options:
        inner = option[0] if len(option) == 1 else None
        several.update(dict.fromkeys(inner.options if isinstance(inner, Choice) else [option]))
    if len(several) == 1:
        return next(iter(several))
    if not name and all(isinstance(piece, str) for option in several for piece in option):
        return (Choice('', tuple(several)),)
    if not any(fixed_words(option) for option in several):
        return (Slot(name or next(_names(several), 'value')),)
    return (Choice(name, tuple(several)),)


def _names(templates: Iterable[Template]) -> Iterator[str]:
    return (piece.name for template in templates for piece in template if not isinstance(piece, str))


def says(text: Template) -> bool:
    """Whether any of it is words that are known."""
    return any((isinstance(piece, str) and _WORD.search(piece)) or isinstance(piece, Choice) for piece in text)
