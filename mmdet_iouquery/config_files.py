"""Finds the configs that are shipped with the package, from a source checkout as well as from an installed wheel."""

from __future__ import annotations

import difflib
from pathlib import Path

from .errors import InputError

PACKAGE = Path(__file__).resolve().parent


def config_root(package: Path = PACKAGE) -> Path:
    """The folder of the shipped configs.

    A source checkout has ``configs/`` beside the package; a wheel carries the same tree inside it, in the folder
    ``.mim`` where OpenMMLab's tools look. ``pyproject.toml`` tells a checkout from a neighbour in ``site-packages``.
    """
    checkout = package.parent
    if (checkout / 'pyproject.toml').is_file() and (checkout / 'configs').is_dir():
        return checkout / 'configs'
    return package / '.mim' / 'configs'


def config_names(root: Path | None = None) -> list[str]:
    """The names that :func:`config_path` takes, sorted, without the shared pieces in ``_base_``."""
    root = config_root() if root is None else root
    names = (path.relative_to(root).as_posix() for path in root.rglob('*.py'))
    return sorted(name for name in names if not name.startswith('_base_/'))


def config_path(name: str, root: Path | None = None) -> str:
    """The absolute path of a shipped config, e.g. of ``rtdetr/rtdetr_r18vd_8xb2-72e_coco.py``.

    Raises:
        InputError: there is no such config; the message lists the names that come close.
    """
    root = config_root() if root is None else root
    path = (root / name).resolve()
    if path.is_file() and path.suffix == '.py' and root.resolve() in path.parents:
        return str(path)
    raise InputError(f'there is no shipped config {name!r} in {root}; {_hint(name, config_names(root))}')


def _hint(name: str, known: list[str]) -> str:
    if not known:
        return 'the folder holds no configs at all: the installation is incomplete'
    wanted = name.rsplit('/', 1)[-1]
    by_file = {known_name.rsplit('/', 1)[-1]: known_name for known_name in known}
    close = [by_file[match] for match in difflib.get_close_matches(wanted, by_file, n=5, cutoff=0.5)]
    return f'close to it: {", ".join(close)}' if close else f'there are: {", ".join(known)}'
