"""Configs as one file of plain values: without bases, without what belongs to one machine, and read without being run.

mmengine runs a config as Python, which is no way to read one from the network.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import mmengine.registry
from mmengine.config import Config
from mmengine.registry import Registry
from mmengine.utils import import_modules_from_strings

from ..errors import InputError

_OF_A_RUN = ('work_dir', 'load_from', 'resume')
_DRIVE = re.compile(r'[A-Za-z]:[\\/]')


def flat_config(cfg: Config) -> str:
    """The text of a config file with all that ``cfg`` holds, but for the entries and paths of one machine.

    Absolute paths keep what stands below the folder that holds the ``data_root``, or their last part alone; a
    ``checkpoint`` to start from that is such a path is left out.
    """
    content = {name: value for name, value in cfg.to_dict().items() if name not in _OF_A_RUN}
    roots = sorted((root for root in _data_roots(content) if _is_absolute(root)), key=len, reverse=True)
    return Config(_portable(content, [os.path.dirname(root.rstrip('/\\')) for root in roots])).pretty_text


def read_flat_config(path: Path) -> Config:
    """A config file of plain values, without running it; the modules of its ``custom_imports`` are imported.

    Raises:
        InputError: it is missing, holds more than names with values, or asks for a type that is in no registry.
    """
    try:
        text = path.read_text(encoding='utf-8')
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f'cannot read {path}: {error}; check the path, and who may read it') from error
    cfg = parse_flat_config(text, path)
    try:
        if cfg.get('custom_imports'):
            import_modules_from_strings(**cfg.custom_imports)
    except (ImportError, TypeError) as error:
        raise InputError(f'{path} needs a module that cannot be imported here: {error}; install it') from error
    for kind in _types(cfg.to_dict()):
        if not _is_registered(kind):
            raise InputError(
                f'{path} asks for the type {kind!r}, which no registry knows; import what registers it, or, if you '
                'trust the file, read it with mmengine.Config.fromfile'
            )
    return cfg


def parse_flat_config(text: str, path: Path) -> Config:
    """The config in a text; see :func:`read_flat_config`, ``path`` being named in the error."""
    content: dict[str, Any] = {}
    try:
        for node in ast.parse(text).body:
            if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
                content[node.targets[0].id] = _value(node.value)
            elif not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
                raise ValueError(f'line {node.lineno}: {ast.unparse(node).splitlines()[0][:80]}')
    except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
        raise InputError(
            f'{path} is no config of plain values, and is not run ({error}); if you trust it, read it with '
            'mmengine.Config.fromfile'
        ) from error
    return Config(content, cfg_text=text, filename=str(path))


def _value(node: ast.expr) -> Any:
    """The value of an expression of literals and ``dict(...)``; ValueError: it is another."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == 'dict':
        if not all(isinstance(arg, ast.Dict) for arg in node.args) or not all(kw.arg for kw in node.keywords):
            raise ValueError(f'line {node.lineno}: {ast.unparse(node)[:80]}')
        # mmengine writes dict({...}) where a name is no identifier, such as that of a module's path
        given = {name: value for arg in node.args for name, value in _value(arg).items()}
        return {**given, **{str(kw.arg): _value(kw.value) for kw in node.keywords}}
    if isinstance(node, ast.Dict) and all(node.keys):
        return {ast.literal_eval(key): _value(value) for key, value in zip(node.keys, node.values) if key is not None}
    if isinstance(node, (ast.List, ast.Tuple)):
        values = [_value(item) for item in node.elts]
        return values if isinstance(node, ast.List) else tuple(values)
    return ast.literal_eval(node)


def _children(node: Any) -> Iterator[Any]:
    if isinstance(node, Mapping):
        yield from node.values()
    elif isinstance(node, (list, tuple)):
        yield from node


def _types(node: Any) -> Iterator[str]:
    """What is asked for by ``type``, anywhere."""
    if isinstance(node, Mapping) and isinstance(node.get('type'), str):
        yield node['type']
    for child in _children(node):
        yield from _types(child)


def _is_registered(name: str) -> bool:
    """Whether a registry has a name with a scope; what none has it would import. A name without is only looked up."""
    scope, dot, bare = name.rpartition('.')
    if not dot:
        return bare.isidentifier()
    roots = [value for value in vars(mmengine.registry).values() if isinstance(value, Registry)]
    for registry in (scoped for root in roots for scoped in (root, *root.children.values())):
        if registry.scope == scope:
            registry.import_from_location()
            if bare in registry.module_dict:
                return True
    return False


def _data_roots(node: Any) -> Iterator[str]:
    if isinstance(node, Mapping) and isinstance(node.get('data_root'), str):
        yield node['data_root']
    for child in _children(node):
        yield from _data_roots(child)


def _is_absolute(text: str) -> bool:
    return os.path.isabs(text) or text.startswith(('~', 'file:')) or _DRIVE.match(text) is not None


def _portable(node: Any, parents: list[str], data_root: str | None = None) -> Any:
    """A copy without paths of one machine.

    Args:
        node: any value of a config.
        parents: folders that hold a ``data_root``.
        data_root: that of the data set which ``node`` belongs to; what lies in it is named from there.
    """
    if isinstance(node, Mapping):
        if isinstance(node.get('checkpoint'), str) and _is_absolute(node['checkpoint']):
            return None
        own = node.get('data_root') if isinstance(node.get('data_root'), str) else data_root
        return {
            key: value.rpartition('.')[2]
            if key == 'type' and isinstance(value, str) and value.count('.') > 1  # the path of a class
            else _portable(value, parents, None if key == 'data_root' else own)
            for key, value in node.items()
        }
    if isinstance(node, (list, tuple)):
        return type(node)(_portable(child, parents, data_root) for child in node)
    if not isinstance(node, str) or not _is_absolute(node):
        return node
    for folder in ([data_root] if data_root else []) + parents:
        start = folder.rstrip('/\\') + '/'
        if node.replace('\\', '/').startswith(start.replace('\\', '/')):
            return node[len(start) :]
    end = '/' if node.endswith(('/', '\\')) else ''
    return re.split(r'[\\/]', node.rstrip('/\\'))[-1] + end
