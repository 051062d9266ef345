"""Finds the configs that are shipped with the package, from a source checkout as well as from an installed wheel."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

from .errors import InputError

PACKAGE = Path(__file__).resolve().parent
COSTS = 'costs.json'
"""In the folder of configs: parameters and FLOPs of each."""
_RECIPE = r'_(?:\d+(?:xb\d+-\d+[ex])?_)?(?:coco|coco-style|digits|objects365)'
"""What follows a model in the name of its config: batch and schedule, if it is named for them, and the data."""


def config_root(package: Path = PACKAGE) -> Path:
    """The folder of the shipped configs.

    A source checkout has ``configs/`` beside the package; a wheel carries the same tree inside it, in the folder
    ``.mim`` where OpenMMLab's tools look. ``pyproject.toml`` tells a checkout from a neighbour in ``site-packages``.
    """
    checkout = package.parent
    if (checkout / 'pyproject.toml').is_file() and (checkout / 'configs').is_dir():
        return checkout / 'configs'
    return package / '.mim' / 'configs'


def tools_root() -> Path:
    """The folder of the scripts, which lies beside that of the configs."""
    return config_root().with_name('tools')


def config_names(root: Path | None = None) -> list[str]:
    """The shipped configs by their paths in the folder, sorted, without the shared pieces in ``_base_``."""
    root = config_root() if root is None else root
    names = (path.relative_to(root).as_posix() for path in root.rglob('*.py'))
    return sorted(name for name in names if not name.startswith('_base_/'))


def find_config(config: str | Path) -> Path:
    """A config file, or one that is shipped, see :func:`config_path`, whose errors it raises."""
    return Path(config) if Path(config).is_file() else Path(config_path(str(config)))


def config_path(name: str, root: Path | None = None) -> str:
    """The absolute path of a shipped config.

    Args:
        name: its path in the folder, e.g. ``rtdetr/rtdetr_r18vd_8xb2-72e_coco.py``; the folder and the ending may be
            left out, and so may the recipe that ends the file's name: ``rtdetr_r18vd``. Of several that this fits,
            the one for COCO is meant.
        root: the folder; None: that of :func:`config_root`.

    Raises:
        InputError: there is no such config, or several; the message lists them, or the names that come close.
    """
    root = config_root() if root is None else root
    path = (root / name).resolve()
    if path.is_file() and path.suffix == '.py' and root.resolve() in path.parents:
        return str(path)
    names = config_names(root)
    fitting = named_so(name, names)
    if len(fitting) == 1:
        return str(root.resolve() / fitting[0])
    if fitting:
        raise InputError(f'the shipped config {name!r} may be any of {", ".join(fitting)}; name one of them')
    if name and Path(name).is_dir():
        inside = Path(name) / 'config.py'
        raise InputError(f'{name} is a folder; name {inside if inside.is_file() else "a config file in it"}')
    if names and name.endswith('.py') and not (Path(name).parent.is_dir() or path.parent.is_dir()):
        raise InputError(f'there is no config {name}, nor its folder; correct the path, or name a shipped one')
    if len(Path(name).parts) > 1 and Path(name).parent.is_dir() and not Path(name).exists():
        raise InputError(f'there is no file or folder {name}; correct the path, or name a shipped config')
    raise InputError(f'there is no shipped config {name!r} in {root}; {_hint(name, names)}')


def named_so(name: str, names: list[str]) -> list[str]:
    """Those of the paths in the folder of configs that a short name may mean, see :func:`config_path`."""
    wanted = re.escape(name.removesuffix('.py'))
    if not wanted:
        return []
    exact, short = (re.compile(rf'(?:.*/)?{wanted}{recipe}\.py') for recipe in ('', _RECIPE))
    fitting = [known for known in names if exact.fullmatch(known)] or [k for k in names if short.fullmatch(k)]
    return [known for known in fitting if known.endswith('_coco.py')] or fitting


def short_name(name: str, names: list[str]) -> str:
    """The shortest name that means a config of these, the path ``name`` itself at the longest."""
    stem = name.rsplit('/', 1)[-1].removesuffix('.py')
    for shorter in (re.sub(f'{_RECIPE}$', '', stem), stem):
        if named_so(shorter, names) == [name]:
            return shorter
    return name


def model_name(config: str | Path) -> str:
    """What the model of a config is called: by the file, or by its folder, where every file is called ``config.py``."""
    path = Path(config)
    return path.absolute().parent.name if path.name == 'config.py' else path.stem


def _hint(name: str, known: list[str]) -> str:
    if not known:
        return 'the folder holds no configs at all: the installation is incomplete'
    wanted = name.rsplit('/', 1)[-1].removesuffix('.py')
    short = {known_name.rsplit('/', 1)[-1].removesuffix('.py'): short_name(known_name, known) for known_name in known}
    short.update({name: name for name in short.values()})
    close = dict.fromkeys(short[match] for match in difflib.get_close_matches(wanted, short, n=8, cutoff=0.5))
    return f'close to it: {", ".join([*close][:5])}' if close else '`iouquery configs` lists them'
