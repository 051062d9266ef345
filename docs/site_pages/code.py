"""The packages' source, read without importing it: what is public, what is registered, what a name means."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import griffe

from .links import ROOT, file_link

PACKAGES = ('iouquery_runtime', 'mmdet_iouquery')
PUBLIC: dict[str, tuple[str, ...]] = {
    'mmdet_iouquery': (),
    'mmdet_iouquery.structures': (),
    'mmdet_iouquery.errors': (),
    'mmdet_iouquery.core': (),
    'mmdet_iouquery.datasets': (),
    'mmdet_iouquery.checkpoints': (),
    'mmdet_iouquery.deploy': (),
    'mmdet_iouquery.cpu': (),
    'mmdet_iouquery.testing': (),
    'iouquery_runtime': (),
    'iouquery_runtime.jobs': (
        *('predict.predict', 'predict.dry_run', 'predict.Request', 'engine.Size', 'manifest.Shard'),
        *('worker.ExportedOpener', 'worker.Opener', 'worker.Prepared'),
    ),
}
"""Modules for programs, and their names; where none are named, those of ``__all__``, or else what they define."""

UNREGISTERED = ('mmdet_iouquery.apps',)
"""What registers nothing when the package is imported, but when it runs."""


class Registered(NamedTuple):
    """A class that configs name by its ``type``."""

    source: griffe.Class
    names: dict[str, str]
    """By registry, such as ``mmdet.registry.MODELS``."""

    @property
    def folder(self) -> str:
        """What it is defined in, below the package: the module's own folder."""
        return str(self.source.module.path).partition('.')[2].rpartition('.')[0]


@cache
def packages() -> griffe.ModulesCollection:
    """Both packages."""
    return load()


def load(extensions: Any = None) -> griffe.ModulesCollection:
    """Both packages, as ``extensions`` leave them."""
    loader = griffe.GriffeLoader(search_paths=[ROOT], extensions=extensions, docstring_parser='google')
    for package in PACKAGES:
        loader.load(package)
    loader.resolve_aliases(implicit=False, external=False)
    return loader.modules_collection


def every(obj: griffe.Object) -> Iterator[griffe.Object]:
    """An object and all that is defined in it."""
    yield obj
    for member in obj.members.values():
        if not member.is_alias:
            yield from every(member)


@cache
def objects() -> dict[str, griffe.Object]:
    """All that is defined, by its path."""
    return {obj.path: obj for package in PACKAGES for obj in every(packages()[package])}


def source_link(obj: griffe.Object) -> str:
    """The address of the lines that define something."""
    return file_link(source_path(obj), None if obj.is_module else obj.lineno)


def source_path(obj: griffe.Object) -> str:
    """The file that defines something, in the repository."""
    return obj.filepath.relative_to(ROOT).as_posix()


@cache
def registered() -> list[Registered]:
    """All registered classes, in the order of the source."""
    classes = []
    for path, obj in objects().items():
        if obj.is_class and not path.startswith(UNREGISTERED):
            names = {}
            for decorator in obj.decorators:
                registry, _, method = decorator.callable_path.rpartition('.')
                if method == 'register_module':
                    given = [ast.literal_eval(str(argument)) for argument in decorator.value.arguments]
                    names[registry] = given[0] if given else obj.name
            if names:
                classes.append(Registered(obj, names))
    return classes


def public(module: str) -> list[str]:
    """The names that a module has for programs."""
    if PUBLIC[module]:
        return [*PUBLIC[module]]
    source = packages()[module]
    if source.exports is not None:
        return [str(name) for name in source.exports if not str(name).startswith('__')]
    return [name for name, member in source.members.items() if not (member.is_alias or name.startswith('_'))]


def definition(path: str) -> griffe.Object:
    """What a public name stands for, wherever that is defined."""
    obj = packages()[path]
    return obj.final_target if obj.is_alias else obj


@cache
def entries() -> list[griffe.Object]:
    """The definitions of all that the reference has an entry for."""
    shown = [entry.source for entry in registered()]
    shown += [definition(f'{module}.{name}') for module in PUBLIC for name in public(module)]
    return [*{source.path: source for source in shown}.values()]


@cache
def documented() -> dict[str, str]:
    """The paths of definitions that the reference shows, each with the path of the entry that it is part of."""
    shown = {}
    for entry in entries():
        shown[entry.path] = entry.path
        for member in entry.members.values() if entry.is_class else ():
            if not member.is_alias and member.is_public and member.has_docstring:
                shown[member.path] = member.path if member.is_function else entry.path
    return shown


def meaning(name: str, scope: griffe.Object) -> griffe.Object | None:
    """What a name in a docstring of ``scope`` refers to; None: what is defined elsewhere, or the standard library.

    Raises:
        NameError: there is nothing of the name.
    """
    collection, known = packages(), objects()
    try:
        path = scope.resolve(name.split('.')[0]) + name[len(name.split('.')[0]) :]
    except griffe.NameResolutionError:
        path = name
    module = scope if scope.is_module else scope.module
    folder = module.path if module.is_init_module else module.path.rpartition('.')[0]
    for candidate in (path, f'{scope.path}.{name}', f'{folder}{name}' if name.startswith('.') else name):
        try:
            obj = collection[candidate]
        except (KeyError, griffe.AliasResolutionError, griffe.CyclicAliasError):
            continue
        return obj.final_target if obj.is_alias else obj
    ending = f'.{name.lstrip(".")}'
    fitting = [obj for known_path, obj in known.items() if known_path.endswith(ending)]
    package = scope.path.split('.')[0]
    fitting = [obj for obj in fitting if obj.path.startswith(f'{package}.')] or fitting
    if len(fitting) == 1:
        return fitting[0]
    first = path.split('.')[0]
    if first not in PACKAGES and (first in sys.stdlib_module_names or '.' in path):
        return None
    raise NameError(f'{name!r} may be any of {[obj.path for obj in fitting]}' if fitting else f'there is no {name!r}')
