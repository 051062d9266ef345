"""Where code looks inside another package: names that are private by their underscore, and frames of its functions."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from structure import PACKAGE, ROOT

OURS = (PACKAGE, 'iouquery_runtime')
PUBLIC = {'_asdict', '_exit', '_fields', '_make', '_replace'}
"""Of Python's own, documented: named tuples and ``os``."""
UNSUPPORTED = {'ctypes', 'native_batch_norm', 'torch.ops'}
"""Of the C library and torch, without an underscore."""
_INSIDE = re.compile(
    r'_[^\W_](\w*[^\W_])?'  # not _base_ and the like: words of configs, and IPython's protocol
    r'|(f|tb|co|gi|cr|ag)_[a-z]+|cell_contents|__(code|closure|defaults|globals|kwdefaults)__'
)
_BY_NAME = {'attrgetter', 'delattr', 'find_module', 'find_spec', 'getattr', 'hasattr', 'import_module', 'setattr'}


class Look(NamedTuple):
    """A name in a file, as a test lists it."""

    path: str
    name: str


class Class(NamedTuple):
    """What is known of the classes of a name."""

    bases: set[str]
    names: set[str]
    """Private ones that its body defines or sets on ``self``."""


def shipped(root: Path = ROOT) -> dict[str, ast.Module]:
    """Every file of Python but the tests, by its path."""
    folders = [*OURS, 'docs', 'examples', 'tools']
    paths = [*root.glob('*.py'), *(path for folder in folders for path in (root / folder).rglob('*.py'))]
    return {path.relative_to(root).as_posix(): ast.parse(path.read_text(encoding='utf-8')) for path in sorted(paths)}


def looks_inside(trees: dict[str, ast.Module]) -> set[Look]:
    """Private names of what is not ``self``, or that ``self`` has of another package; methods that ours never call.

    Names of modules and arguments, and texts that ``getattr`` and the like are given, count too, and so do
    :data:`UNSUPPORTED`.
    """
    classes = _classes(trees.values())
    attributes = [node for tree in trees.values() for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    called = {node.attr for node in attributes if not _of_parents(node)}
    looks = set()
    for path, tree in trees.items():
        kinds = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
        own = {id(node) for kind in kinds for node in _own(kind, classes)}
        looks |= {Look(path, name) for node in ast.walk(tree) if id(node) not in own for name in _names(node)}
        methods = {node.name for kind in kinds for node in kind.body if isinstance(node, ast.FunctionDef)}
        looks |= {Look(path, name) for name in methods - called if _INSIDE.fullmatch(name)}
    return looks


def _names(node: ast.AST) -> Iterator[str]:
    names: Iterable[str | None] = ()
    if isinstance(node, ast.Attribute):
        names = [f'torch.{node.attr}' if node.attr == 'ops' and _last(node.value) == 'torch' else node.attr]
    elif isinstance(node, ast.keyword):
        names = [node.arg]
    elif isinstance(node, ast.Import):
        names = [name for alias in node.names for name in alias.name.split('.')]
    elif isinstance(node, ast.ImportFrom) and not node.level and (node.module or '').split('.')[0] not in OURS:
        names = [*(node.module or '').split('.'), *(alias.name for alias in node.names)]
    elif isinstance(node, ast.Call) and _last(node.func) in _BY_NAME:
        texts = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
        names = [name for text in texts if isinstance(text, str) for name in text.split('.')]
    for name in names:
        if name and name not in PUBLIC and (name in UNSUPPORTED or _INSIDE.fullmatch(name)):
            yield name


def _classes(trees: Iterable[ast.Module]) -> dict[str, Class]:
    classes: dict[str, Class] = defaultdict(lambda: Class(set(), set()))
    for tree in trees:
        for kind in ast.walk(tree):
            if isinstance(kind, ast.ClassDef):
                classes[kind.name].bases.update(map(_last, kind.bases))
                for node in ast.walk(kind):
                    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                        classes[kind.name].names.add(node.name)
                    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                        classes[kind.name].names.add(node.id)
                    elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and _of_self(node):
                        classes[kind.name].names.add(node.attr)
    return classes


def _own(kind: ast.ClassDef, classes: dict[str, Class]) -> Iterator[ast.Attribute]:
    """Attributes that a class reads of itself and has of a class of ours."""
    inherited = _inherited(kind.name, classes)
    for node in ast.walk(kind):
        if isinstance(node, ast.Attribute):
            known = inherited if _of_parents(node) else inherited | classes[kind.name].names
            if (_of_parents(node) or _of_self(node)) and node.attr in known:
                yield node


def _inherited(name: str, classes: dict[str, Class]) -> set[str]:
    """Private names of what a class of ours derives from that is ours too."""
    bases = [base for base in classes[name].bases - {name} if base in classes]
    return {private for base in bases for private in classes[base].names | _inherited(base, classes)}


def _of_parents(node: ast.Attribute) -> bool:
    return isinstance(node.value, ast.Call) and _last(node.value.func) == 'super'


def _of_self(node: ast.Attribute) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id in ('self', 'cls')


def _last(node: ast.AST) -> str:
    """The last part of a dotted name; of ``Generic[T]``, that of ``Generic``."""
    node = node.value if isinstance(node, ast.Subscript) else node
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ''
