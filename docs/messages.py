"""What the package says when something is wrong: its errors, warnings and notes, read from the source."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from message_source import ROOT, Function, Scope, Source, functions_named, inside, last_name, source, template
from message_templates import Choice, Slot, Template, fixed_words, joined

PACKAGES = ('mmdet_iouquery', 'iouquery_runtime', 'iouquery.py')
_ERROR = re.compile(r'\w*(?:Error|Stopped)')
_FEWEST = 2  # words that a text must have to be found by
# calls that print or note what they are given: whose they are, what stands before, and the arguments that are the text
_SHOWN_BY: dict[str, tuple[Collection[str], str, tuple[int, ...]]] = {
    'print': ((), '', (0,)),
    'warn': (('warnings',), '', (0,)),
    'warning': (('logger',), '', (0,)),
    'error': (('parser', 'self', 'logger'), '', (0,)),
    'leave_out': (('account',), 'left out, ', (0, 1)),
    'change': (('account',), 'changed: ', (0,)),
    'Finding': ((), '', (1, 2)),
    'DataFinding': ((), '', (2, 3)),
}
_BETWEEN = {'leave_out': ': ', 'Finding': '; remedy: ', 'DataFinding': ' -> '}
_PRINTED = re.compile(r'(?:error|note|warning|stopped)\b')


class Message(NamedTuple):
    """A text with its values left open, the file, class and function that say it, and whether it is an exception's."""

    text: Template
    location: str
    line: int
    is_error: bool


class Raised(NamedTuple):
    """A ``raise`` with an exception; ``is_told``: its text is among the messages, or it hands on a caught exception."""

    location: str
    line: int
    is_told: bool


def sources() -> Iterator[Source]:
    """The files of the package."""
    for name in PACKAGES:
        path = ROOT / name
        yield from map(source, sorted(path.rglob('*.py')) if path.is_dir() else [path])


def messages(told_by: Iterable[str] = ()) -> list[Message]:
    """All, each text of a location once.

    Args:
        told_by: locations of functions whose values are sentences that others print or put into their own.
    """
    functions = frozenset(told_by)
    texts = [message for where in sources() for message in messages_of(where, functions)]
    return sorted({(m.location, m.text): m for m in reversed(texts)}.values(), key=lambda m: (m.location, m.line))


def raises_of(where: Source) -> Iterator[Raised]:
    """Every ``raise`` of a file that names an exception."""
    for node in ast.walk(where.tree):
        if isinstance(node, ast.Raise) and node.exc is not None:
            yield Raised(where.location_of(node), node.lineno, _is_told(node.exc, where))


def has_words(text: Template) -> bool:
    """Whether a text can be found by words of its own."""
    inner = [option for piece in text if isinstance(piece, Choice) for option in piece.options]
    return len(fixed_words(text)) >= _FEWEST or any(map(has_words, inner))


def messages_of(where: Source, told_by: Collection[str] = ()) -> Iterator[Message]:
    """Those of a file."""
    for node in ast.walk(where.tree):
        if isinstance(node, ast.Call):
            is_error = _is_error(node, where)
            for text in _alternatives(_error(node, where) if is_error else _shown_text(node, where)):
                yield Message(text, where.location_of(node), node.lineno, is_error)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and where.location_of(node.body[0]) in told_by:
            for text in _values(node, where):
                yield Message(text, where.location_of(node.body[0]), node.lineno, False)


def _alternatives(text: Template) -> Iterator[Template]:
    """The texts of a choice between whole messages."""
    if len(text) == 1 and isinstance(text[0], Choice):
        for option in text[0].options:
            yield from _alternatives(option)
    elif text:
        yield text


def _is_error(node: ast.Call, where: Source) -> bool:
    if isinstance(node.func, ast.Call):  # type(error)(text)
        return last_name(node.func.func) == 'type' and isinstance(where.parents.get(node), ast.Raise)
    return bool(_ERROR.fullmatch(last_name(node.func)))


def _error(node: ast.Call, where: Source) -> Template:
    is_stop = last_name(node.func) == 'TrainingStopped'
    values = node.args[1:] if is_stop else node.args[:1]
    before: Template = ('stopped by ', Slot('signal'), ' ') if is_stop else ()
    return joined(before, *(template(value, _scope(node, where)) for value in values))


def _shown_text(node: ast.Call, where: Source) -> Template:
    name = last_name(node.func)
    owners, before, numbers = _SHOWN_BY.get(name, ((), '', ()))
    owner = last_name(node.func.value) if isinstance(node.func, ast.Attribute) else ''
    if not numbers or (owners and owner not in owners) or len(node.args) <= max(numbers):
        return ()
    texts = [template(node.args[number], _scope(node, where)) for number in numbers]
    text = joined((before,), texts[0], *(piece for text in texts[1:] for piece in ((_BETWEEN[name],), text)))
    is_shown = name != 'print' or (
        isinstance(text[:1], tuple) and bool(_PRINTED.match(str(text[0]))) if text else False
    )
    return text if is_shown and has_words(text) else ()


def _values(function: Function, where: Source) -> Iterator[Template]:
    """Sentences that a function gives: one, some in a list, or what it appends to one."""
    scope = Scope(where, function)
    for node in inside(function):
        value = node.args[0] if isinstance(node, ast.Call) and last_name(node.func) == 'append' else None
        value = node.value if isinstance(node, (ast.Return, ast.Yield)) else value
        for element in _single(value):
            yield from filter(has_words, _alternatives(template(element, scope)))


def _single(node: ast.expr | None) -> Iterator[ast.expr]:
    """The elements of a list that is written out, or a single value."""
    if isinstance(node, (ast.List, ast.Tuple)):
        yield from (element for element in node.elts if not isinstance(element, ast.Starred))
    elif isinstance(node, (ast.ListComp, ast.GeneratorExp)):
        yield node.elt
    elif isinstance(node, ast.IfExp):
        yield from (*_single(node.body), *_single(node.orelse))
    elif node is not None:
        yield node


def _scope(node: ast.AST, where: Source) -> Scope:
    return Scope(where, where.function_of(node))


def _is_told(node: ast.expr, where: Source) -> bool:
    """Whether an exception is made here or by a helper, or was caught."""
    if isinstance(node, ast.Name):
        tries = [outer for outer in where.above(node) if isinstance(outer, ast.ExceptHandler)]
        return any(handler.name == node.id for handler in tries)
    calls = [inner for inner in ast.walk(node) if isinstance(inner, ast.Call)]
    if any(_is_error(call, where) and call.args for call in calls):
        return True
    for call in calls:
        called, functions = functions_named(last_name(call.func), where)
        made = (inner for function in functions for inner in inside(function))
        if any(isinstance(inner, ast.Call) and _is_error(inner, called) for inner in made):
            return True
    return False
