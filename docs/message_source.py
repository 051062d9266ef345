"""What expressions of the package's code say, as templates. The code is read, and nothing is imported or run.

What stands in the braces of an f-string becomes a slot, named after the expression. What is one of several texts is a
choice: a conditional expression, a name assigned more than once, an entry of a dict, what a helper returns, and what a
parameter is given by callers in its own file.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Union

from message_templates import Slot, Template, joined, one_of, says

ROOT = Path(__file__).resolve().parents[1]
_DEPTH = 6  # of helpers within helpers
Function = Union[ast.FunctionDef, ast.AsyncFunctionDef]


class Source:
    """A file of Python, parsed.

    Attributes:
        name: its path below the root.
        tree: its syntax tree.
        parents: the node that each node stands in.
        functions: by their names, methods among them.
        calls: by the name of what is called.
        constants: what names of the module are assigned.
        imports: names that are imported from other files of the root, with the file and the name there.
    """

    def __init__(self, path: Path, root: Path = ROOT) -> None:
        self.path, self.name = path, path.relative_to(root).as_posix()
        self.tree = ast.parse(path.read_text(encoding='utf-8'))
        self.parents = {child: node for node in ast.walk(self.tree) for child in ast.iter_child_nodes(node)}
        self.functions: dict[str, list[Function]] = defaultdict(list)
        self.calls: dict[str, list[ast.Call]] = defaultdict(list)
        self.constants: dict[str, ast.expr] = {}
        self.imports: dict[str, tuple[Path, str]] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                self.functions[node.name].append(node)
            elif isinstance(node, ast.Call):
                self.calls[last_name(node.func)].append(node)
            elif isinstance(node, ast.ImportFrom):
                folder = root if not node.level else path.parents[node.level - 1]
                file = _module_file(folder.joinpath(*(node.module or '').split('.')))
                self.imports.update({alias.asname or alias.name: (file, alias.name) for alias in node.names if file})
        for node in self.tree.body:
            target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, 'target', None)
            if isinstance(node, (ast.Assign, ast.AnnAssign)) and isinstance(target, ast.Name) and node.value:
                self.constants[target.id] = node.value

    def function_of(self, node: ast.AST) -> Function | None:
        """The innermost function that a node stands in."""
        return next(
            (outer for outer in self.above(node) if isinstance(outer, (ast.FunctionDef, ast.AsyncFunctionDef))), None
        )

    def location_of(self, node: ast.AST) -> str:
        """File, class and function, such as ``mmdet_iouquery/run.py::Tool.start``."""
        above = [outer.name for outer in self.above(node) if isinstance(outer, (ast.ClassDef, ast.FunctionDef))]
        return '::'.join([self.name, '.'.join(reversed(above))]) if above else self.name

    def above(self, node: ast.AST) -> Iterator[ast.AST]:
        """What a node stands in, the innermost first."""
        while node in self.parents:
            node = self.parents[node]
            yield node


def _module_file(path: Path) -> Path | None:
    return next((file for file in (path.with_suffix('.py'), path / '__init__.py') if file.is_file()), None)


@cache
def source(path: Path) -> Source:
    """A file, parsed once."""
    return Source(path)


@dataclass(frozen=True)
class Scope:
    """Where an expression stands: a file, a function of it, and what the function's parameters are known to be."""

    source: Source
    function: Function | None = None
    bound: Mapping[str, Template] = field(default_factory=dict)
    depth: int = 0
    open_names: frozenset[tuple[int, str]] = frozenset()

    def deeper(self, **changes: object) -> Scope:
        """The same with changes, one level down."""
        settings = dict(source=self.source, function=self.function, bound=self.bound, open_names=self.open_names)
        return Scope(**{**settings, **changes}, depth=self.depth + 1)  # type: ignore[arg-type]


def template(node: ast.expr, scope: Scope) -> Template:
    """What an expression says."""
    if isinstance(node, ast.Constant):
        return () if node.value is None or node.value == '' else (str(node.value),)
    if isinstance(node, ast.JoinedStr):
        return joined(*(template(value, scope) for value in node.values))
    if isinstance(node, ast.FormattedValue):
        return template(node.value, scope)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        sides = template(node.left, scope), template(node.right, scope)
        return joined(*sides) if any(map(says, sides)) else (Slot(slot_name(node)),)
    if isinstance(node, ast.IfExp):
        return one_of('', (template(node.body, scope), template(node.orelse, scope)))
    if isinstance(node, ast.BoolOp):
        options = [template(value, scope) for value in node.values]
        return one_of('', options) if any(map(says, options)) else (Slot(slot_name(node)),)
    if isinstance(node, ast.Name):
        return _named(node, scope) or (Slot(slot_name(node)),)
    if isinstance(node, ast.Subscript):
        return _entry(node, node.value, scope)
    if isinstance(node, ast.Call):
        return _called(node, scope)
    return (Slot(slot_name(node)),)


def _called(node: ast.Call, scope: Scope) -> Template:
    slot: Template = (Slot(slot_name(node)),)
    if isinstance(node.func, ast.Attribute):
        if node.func.attr == 'join' and isinstance(node.func.value, ast.Constant):
            return _list(str(node.func.value.value), node.args[0], scope) or slot
        if node.func.attr in ('format', 'capitalize', 'strip', 'splitlines'):
            inner = template(node.func.value, scope)
            return inner if says(inner) else slot
        if node.func.attr == 'get':
            entry = _entry(node, node.func.value, scope)
            default = [template(value, scope) for value in node.args[1:]]
            return one_of(slot_name(node), (entry, *default)) if says(entry) else slot
    if isinstance(node.func, ast.Name) and node.func.id in ('str', 'repr') and node.args:
        return template(node.args[0], scope)
    name = last_name(node.func)
    where, functions = functions_named(name, scope.source)
    if len(functions) != 1 or scope.depth >= _DEPTH:
        return slot
    function = functions[0]
    given = {name: template(value, scope) for name, value in _arguments(node, function)}
    inner_scope = scope.deeper(source=where, function=function, bound=given)
    given_back = [inner for inner in inside(function) if isinstance(inner, (ast.Return, ast.Yield))]
    returned = [inner.value for inner in given_back if inner.value is not None]
    texts = one_of(name.strip('_'), [template(value, inner_scope) for value in returned]) if returned else ()
    return texts if says(texts) else slot


def _list(separator: str, node: ast.expr, scope: Scope) -> Template:
    """Texts of a list that is written out, joined."""
    texts = [template(element, scope) for element in _elements(node, scope)]
    pieces = [piece for text in texts for piece in ((separator,), text)][1:]
    return joined(*pieces) if any(map(says, texts)) else ()


def _elements(node: ast.expr, scope: Scope) -> Iterator[ast.expr]:
    """Of a list, of lists in it by their names too, and of what is added to them."""
    if isinstance(node, (ast.List, ast.Tuple, ast.Set)):
        for element in node.elts:
            yield from _elements(element.value, scope) if isinstance(element, ast.Starred) else (element,)
        return
    lists = [*_lists(node.id, scope)] if isinstance(node, ast.Name) else []
    for elements in lists:
        yield from _elements(elements, scope)
    if not lists:
        yield node


def _lists(name: str, scope: Scope) -> Iterator[ast.expr]:
    """Those that a function assigns to a name or adds to it, or else the module's constant."""
    is_assigned = False
    for node in inside(scope.function) if scope.function is not None else ():
        if isinstance(node, (ast.Assign, ast.AugAssign)) and isinstance(node.value, (ast.List, ast.Tuple)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if name in map(last_name, targets):
                is_assigned = True
                yield node.value
    if not is_assigned and name in scope.source.constants:
        yield scope.source.constants[name]


def _entry(node: ast.expr, container: ast.expr, scope: Scope) -> Template:
    """What a dict of the module holds under a key: one of its values."""
    values = scope.source.constants.get(container.id) if isinstance(container, ast.Name) else None
    if isinstance(values, ast.Dict):
        return one_of(slot_name(container), [template(value, scope) for value in values.values])
    return (Slot(slot_name(node)),)


def _named(node: ast.Name, scope: Scope) -> Template:
    """What a name stands for; empty: not known."""
    name = node.id
    if name in scope.bound:
        return scope.bound[name]
    key = (id(scope.function or scope.source), name)
    if key in scope.open_names or scope.depth >= _DEPTH:
        return ()
    inner = scope.deeper(open_names=scope.open_names | {key})
    function = scope.function
    while function is not None:
        values = _values(node, function, scope.source)
        if values:
            return _chosen(name, [template(value, inner) if value else () for value in values])
        if name in _parameters(function):
            return _given(name, function, inner)
        function = scope.source.function_of(function)
    return _constant(name, scope.source, inner)


def _constant(name: str, where: Source, scope: Scope) -> Template:
    if name in where.constants:
        text = template(where.constants[name], scope.deeper(source=where, function=None, bound={}))
        return text if all(isinstance(piece, str) for piece in text) or says(text) else ()
    if name in where.imports:
        file, own_name = where.imports[name]
        return _constant(own_name, source(file), scope) if source(file) is not where else ()
    return ()


def _values(node: ast.Name, function: Function, where: Source) -> list[ast.expr | None]:
    """What a name is given in a function: just before, by the loop that it stands in, or else anywhere."""
    inner: ast.AST = node
    for outer in where.above(node):
        for block in (getattr(outer, name, None) for name in ('body', 'orelse', 'finalbody')):
            if isinstance(block, list) and inner in block:
                for statement in reversed(block[: block.index(inner)]):
                    values = list(_assigned(node.id, ast.walk(statement)))
                    if values and isinstance(statement, (ast.Assign, ast.AnnAssign)):
                        return values
                    if values:
                        return list(_assigned(node.id, inside(function)))
        values = list(_assigned(node.id, [outer])) if isinstance(outer, ast.For) else []
        if values or outer is function:
            return values
        inner = outer
    return list(_assigned(node.id, inside(function)))


def _chosen(name: str, texts: Sequence[Template]) -> Template:
    return one_of(name, texts) if any(map(says, texts)) else ()


def _given(name: str, function: Function, scope: Scope) -> Template:
    """What callers in the same file hand over for a parameter."""
    hidden = function.name.startswith('_') and not function.name.endswith('_')
    if not hidden and scope.source.function_of(function) is None:
        return ()
    texts = []
    for call in scope.source.calls[function.name]:
        value = dict(_arguments(call, function)).get(name)
        caller = scope.deeper(function=scope.source.function_of(call), bound={})
        texts += [template(value, caller)] if value is not None else []
    return _chosen(name, [text for text in texts if says(text) or not text])


def _assigned(name: str, nodes: Iterable[ast.AST]) -> Iterator[ast.expr | None]:
    """Values that a name is given by assignments, and by loops over a literal."""
    for node in nodes:
        if isinstance(node, ast.For):
            for value in node.iter.elts if isinstance(node.iter, (ast.Tuple, ast.List)) else ():
                yield from _unpacked(name, node.target, value)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                yield from _unpacked(name, target, node.value)


def _unpacked(name: str, target: ast.expr, value: ast.expr | None) -> Iterator[ast.expr | None]:
    if isinstance(target, ast.Name) and target.id == name:
        yield value
    elif isinstance(target, ast.Tuple) and isinstance(value, ast.IfExp):
        yield from _unpacked(name, target, value.body)
        yield from _unpacked(name, target, value.orelse)
    elif isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        for inner, inner_value in zip(target.elts, value.elts):
            yield from _unpacked(name, inner, inner_value)


def inside(function: Function) -> Iterator[ast.AST]:
    """Nodes of a function, without those of functions within it."""
    waiting: list[ast.AST] = [*reversed(function.body)]
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)):
            waiting += reversed([*ast.iter_child_nodes(node)])


def functions_named(name: str, where: Source) -> tuple[Source, list[Function]]:
    """The functions that a name may call in a file, and the file that they are in."""
    if name in where.functions:
        return where, where.functions[name]
    if name in where.imports:
        file, own_name = where.imports[name]
        return functions_named(own_name, source(file)) if source(file) is not where else (where, [])
    return where, []


def _parameters(function: Function) -> list[str]:
    return [argument.arg for argument in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)]


def _arguments(call: ast.Call, function: Function) -> Iterator[tuple[str, ast.expr]]:
    """Parameters of a function with what a call gives, or their defaults."""
    names = [argument.arg for argument in (*function.args.posonlyargs, *function.args.args)]
    defaults = dict(zip(reversed(names), reversed(function.args.defaults)))
    defaults |= {
        argument.arg: value
        for argument, value in zip(function.args.kwonlyargs, function.args.kw_defaults)
        if value is not None
    }
    own = names[1:] if names[:1] in (['self'], ['cls']) else names
    given = {name: value for name, value in zip(own, call.args) if not isinstance(value, ast.Starred)}
    yield from {**defaults, **given, **{keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}}.items()


def last_name(node: ast.expr) -> str:
    """The name of a variable or attribute; empty: it is neither."""
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ''


def slot_name(node: ast.AST) -> str:
    """A word for the value of an expression."""
    return _word(node) or 'value'


def _word(node: ast.AST) -> str:
    if isinstance(node, ast.Name):
        return node.id.strip('_').lower()
    if isinstance(node, ast.Attribute):
        if node.attr == '__name__':
            return _word(node.value)
        if node.attr == 'filename' and _word(node.value) == 'cfg':
            return 'config'
        return 'reason' if node.attr == 'strerror' else node.attr.strip('_').lower()
    if isinstance(node, ast.Subscript):
        key = node.slice
        return key.value if isinstance(key, ast.Constant) and isinstance(key.value, str) else _word(node.value)
    if isinstance(node, ast.Call):
        return _word_of_call(node)
    parts: Sequence[ast.AST] = ()
    if isinstance(node, ast.BinOp):
        parts = node.left, node.right
    elif isinstance(node, ast.BoolOp):
        parts = node.values
    elif isinstance(node, (ast.List, ast.Tuple, ast.Set)):
        parts = node.elts
    elif isinstance(node, (ast.GeneratorExp, ast.ListComp, ast.SetComp, ast.DictComp)):
        parts = (node.generators[0].iter,)
    elif isinstance(node, (ast.Starred, ast.NamedExpr)):
        parts = (node.value,)
    return next(filter(None, map(_word, parts)), '')


def _word_of_call(node: ast.Call) -> str:
    name = last_name(node.func)
    if name in ('len', 'sum'):
        return 'number'
    if name == 'type':
        return 'type'
    if name == 'get' and node.args and isinstance(node.args[0], ast.Constant):
        return str(node.args[0].value)
    inner = next(filter(None, map(_word, node.args[name == 'map' :])), '')
    if isinstance(node.func, ast.Attribute) and not inner:
        return _word(node.func.value)
    return inner or name.strip('_')
