"""Packages for a machine that has torch and no network: a folder of wheels, filled here and used there."""

from __future__ import annotations

import importlib.metadata
import runpy
import subprocess
import sys
from pathlib import Path

VERSION = Path(__file__).resolve().parents[2] / 'mmdet_iouquery' / 'version.py'
PLATFORMS = tuple(
    f'manylinux{name}_x86_64' for name in ('_2_34', '_2_28', '_2_27', '_2_24', '_2_17', '2014', '2010', '1')
)


def this_python() -> str:
    """Of this machine, such as 3.12."""
    return '.'.join(map(str, sys.version_info[:2]))


def pack(folder: Path, python: str, there: Path | None) -> str:
    """Download wheels of the onedl family and of all that the parts need, and say what lies in the folder then.

    Args:
        folder: is made.
        python: the other machine's, such as 3.12; it is x86-64 Linux.
        there: a file as ``pip freeze`` prints it there; what it names is left out. None: what torch needs is.
    """
    # read as setup.py does: to import the package would register its parts, for which mmdet may be missing
    family = runpy.run_path(str(VERSION), run_name='mmdet_iouquery_version')['FAMILIES']['onedl']
    pins = {normal(package.distributions[0]): package.pin for package in family}
    names = set(needed(*pins, 'mmdet-iouquery', 'onnxslim', 'pytest', 'pytest-timeout', 'scikit-learn'))
    if there is None:
        names -= set(needed('torch'))
    else:
        lines = there.read_text(encoding='utf-8').split()
        names -= {normal(line.partition('==')[0]) for line in lines}
    names -= {'mmdet-iouquery'}
    kind = ['--python-version', python, '--implementation', 'cp', *(f'--platform={name}' for name in PLATFORMS)]
    pip = [sys.executable, '-m', 'pip', '--disable-pip-version-check', '-q']
    for name in sorted(names):
        wanted = ['--no-deps', pins.get(name, name)]
        download = [*pip, 'download', '--only-binary=:all:', '-d', str(folder), *kind, *wanted]
        if subprocess.run(download, capture_output=True, check=False).returncode:
            # a package without a wheel: one that is built here serves where it holds no compiled code
            subprocess.run([*pip, 'wheel', '-w', str(folder), *wanted], check=True)
    sizes = {path.name: path.stat().st_size / 1e6 for path in sorted(folder.glob('*.whl'))}
    sizes['all'] = sum(sizes.values())
    return '\n'.join(f'{size:6.1f} MB {name}' for name, size in sizes.items())


def unpack(wheels: Path, folder: Path) -> str:
    """Install a folder of wheels into another, which is returned; nothing is fetched, and pip changes nothing else."""
    command = [sys.executable, '-m', 'pip', 'install', '-q', '--no-index', '--no-deps', '--no-compile', '--target']
    subprocess.run([*command, str(folder), *map(str, sorted(wheels.glob('*.whl')))], check=True)
    return str(folder)


def needed(*roots: str) -> list[str]:
    """Names of distributions and, as far as they are installed here, of all that they require."""
    from packaging.requirements import Requirement

    names, waiting = [], list(map(normal, roots))
    while waiting:
        name = waiting.pop()
        if name in names:
            continue
        names.append(name)
        try:
            lines = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        requirements = [Requirement(line) for line in lines]
        waiting += [
            normal(requirement.name)
            for requirement in requirements
            if requirement.marker is None or requirement.marker.evaluate({'extra': ''})
        ]
    return names


def normal(name: str) -> str:
    """A distribution's name as packages are compared by; OpenCV's are of one package."""
    plain = name.strip().lower().replace('_', '-').replace('.', '-')
    return 'opencv-python-headless' if plain.startswith('opencv-') else plain
