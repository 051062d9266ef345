"""The package's files, what they import of each other, and their sizes.

``python tests/structure.py`` prints lines, files and functions by folder; ``tests/test_layers.py`` holds the layers.
"""

from __future__ import annotations

import ast
import statistics
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = 'mmdet_iouquery'
APPS = 'apps'


class Import(NamedTuple):
    """A module of the package that another one imports, at any depth of its code."""

    module: str
    line: int


class Module(NamedTuple):
    """A file of the package. Names are dotted and begin below the package; the package itself is ''."""

    name: str
    path: Path
    tree: ast.Module

    @property
    def unit(self) -> str:
        """The folder or file right below the package that it belongs to."""
        return self.name.split('.')[0]

    @property
    def num_lines(self) -> int:
        return len(self.path.read_text(encoding='utf-8').splitlines())


def modules(root: Path = ROOT) -> dict[str, Module]:
    """Every module of the package, by name."""
    by_name = {}
    for path in sorted((root / PACKAGE).rglob('*.py')):
        parts = path.relative_to(root / PACKAGE).with_suffix('').parts
        name = '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)
        by_name[name] = Module(name, path, ast.parse(path.read_text(encoding='utf-8')))
    return by_name


def imports(module: Module, known: dict[str, Module]) -> list[Import]:
    """What a module imports of the package; of a folder that names something else, the folder itself."""
    above = module.name.split('.') if module.path.name == '__init__.py' else module.name.split('.')[:-1]
    inner_imports = []
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ImportFrom):
            if node.level:
                base = [
                    *[part for part in above if part][: len(above) - node.level + 1],
                    *(node.module or '').split('.'),
                ]
            else:
                first, *base = (node.module or '').split('.')
                if first != PACKAGE:
                    continue
            of = '.'.join(part for part in base if part)
            for alias in node.names:
                inside = f'{of}.{alias.name}' if of else alias.name
                inner_imports.append(Import(inside if inside in known else of, node.lineno))
        elif isinstance(node, ast.Import):
            names = [alias.name.split('.') for alias in node.names]
            inner_imports += [Import('.'.join(rest), node.lineno) for first, *rest in names if first == PACKAGE]
    return inner_imports


def importers(known: dict[str, Module]) -> dict[str, set[str]]:
    """Which modules import each one."""
    by_module: dict[str, set[str]] = defaultdict(set)
    for module in known.values():
        for imported in imports(module, known):
            by_module[imported.module].add(module.name)
    return by_module


def function_sizes(module: Module) -> list[int]:
    """Lines of each function and method."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return [(node.end_lineno or 0) - node.lineno + 1 for node in ast.walk(module.tree) if isinstance(node, kinds)]


def report(root: Path = ROOT) -> str:
    """Lines, files and functions by folder, and how many files one other file imports."""
    known = modules(root)
    lines: Counter[str] = Counter()
    files: Counter[str] = Counter()
    for module in known.values():
        lines[module.unit or '(package)'] += module.num_lines
        files[module.unit or '(package)'] += 1
    rows = [f'{unit:16} {count:6} lines {files[unit]:4} files' for unit, count in sorted(lines.items())]
    sizes = sorted(size for module in known.values() for size in function_sizes(module))
    imported = importers(known)
    by_one = sum(len(imported[name] - {''}) == 1 for name in known if name)
    total = sum(lines.values())
    return '\n'.join(
        [
            *rows,
            f'{"all":16} {total:6} lines {len(known):4} files',
            f'{"but for apps":16} {total - lines[APPS]:6} lines {len(known) - files[APPS]:4} files',
            f'{by_one} of {len(known)} files are imported by one other',
            f'{len(sizes)} functions: median {statistics.median(sizes):g} lines, nine in ten up to '
            f'{sizes[int(0.9 * len(sizes))]}, longest {sizes[-1]}',
        ]
    )


if __name__ == '__main__':
    print(report(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT))
