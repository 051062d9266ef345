"""Where mmdet's own tests come from, and the folder in which they run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mmdet_iouquery import compat
from mmdet_iouquery.errors import InputError
from mmdet_iouquery.version import FAMILIES

from .selection import MODELS_FOLDER, targets

ROOT = Path(__file__).resolve().parents[2]
REPOSITORIES = {
    'onedl': 'https://github.com/VBTI-development/onedl-mmdetection',
    'openmmlab': 'https://github.com/open-mmlab/mmdetection',
}
# What the tests import and mmdet does not require.
REQUIREMENT = 'parameterized'


class Installed(NamedTuple):
    """The mmdet that is tested: its family, the name and version of its distribution, and the folder of its package."""

    family: str
    name: str
    version: str
    package: Path


def installed_mmdet() -> Installed:
    """The mmdet of this environment."""
    versions = compat.installed_versions()
    family = compat.family_of(versions)
    spec = compat.find_module('mmdet')
    if family is None or spec is None or spec.origin is None:
        raise InputError('mmdet is not installed; make setup')
    names = next(package.distributions for package in FAMILIES[family] if package.module == 'mmdet')
    name = next(name for name in names if name in versions)
    return Installed(family, name, versions[name], Path(spec.origin).resolve().parent)


def find_tests(installed: Installed, cache: Path, source: Path | None = None) -> Path:
    """A source tree of mmdet with tests: ``source``, else the source package of the release, else its tag in git.

    What is fetched stays in ``cache`` and is fetched once.

    Raises:
        InputError: none of them has tests.
    """
    if source is not None:
        if not has_tests(source):
            raise InputError(f'{source} has no {MODELS_FOLDER}')
        return source
    folder = cache / f'{installed.name}-{installed.version}'
    for fetch in (fetch_source_package, fetch_repository):
        tree = fetch(installed, folder)
        if tree is not None and has_tests(tree):
            return tree
    url, tag = REPOSITORIES[installed.family], f'v{installed.version}'
    raise InputError(
        f'no tests of {installed.name} {installed.version} here: its source package carries none, or pip could not '
        f'get it, and the tag {tag} of {url} could not be cloned; name a source tree that has {MODELS_FOLDER} '
        'with --source'
    )


def has_tests(tree: Path) -> bool:
    """Whether a source tree of mmdet carries the tests of its models."""
    return (tree / MODELS_FOLDER).is_dir()


def fetch_source_package(installed: Installed, folder: Path) -> Path | None:
    """The unpacked source package of the release; None when pip can't get it."""
    unpacked = folder / 'package'
    if not unpacked.exists():
        options = ['-q', '--no-deps', '--no-binary', ':all:', '--dest', str(folder)]
        if installed.family == 'openmmlab':
            options.append('--no-build-isolation')  # its setup.py imports torch
        requirement = f'{installed.name}=={installed.version}'
        if subprocess.run([sys.executable, '-m', 'pip', 'download', *options, requirement]).returncode != 0:
            return None
        shutil.unpack_archive(next(folder.glob('*.tar.gz')), unpacked)
    return next(unpacked.iterdir(), None)


def fetch_repository(installed: Installed, folder: Path) -> Path | None:
    """A clone of the release's tag; None where there is no git, no network or no such tag."""
    clone = folder / 'repository'
    if clone.exists():
        return clone
    if shutil.which('git') is None:
        return None
    command = ['git', 'clone', '-q', '--depth', '1', '--branch', f'v{installed.version}']
    done = subprocess.run(
        [*command, REPOSITORIES[installed.family], str(clone)], env={**os.environ, 'GIT_TERMINAL_PROMPT': '0'}
    )
    return clone if done.returncode == 0 else None


def fetch_requirement(cache: Path) -> Path:
    """A folder to put on the path for what the tests import; empty where the environment has it."""
    folder = cache / 'requirements'
    if compat.find_module(REQUIREMENT) is None and not (folder / REQUIREMENT).is_dir():
        command = [sys.executable, '-m', 'pip', 'install', '-q', '--no-deps', '--target', str(folder), REQUIREMENT]
        if subprocess.run(command).returncode != 0:
            raise InputError(f'pip could not get {REQUIREMENT}, which the tests of mmdet import')
    return folder


def lay_out(folder: Path, package: Path, tree: Path) -> None:
    """Put into ``folder`` what the tests look for, beside each other: ``mmdet``, ``configs`` and ``tests``.

    ``mmdet`` is a link to the installed package, and ``configs`` to the configs that it carries, so that what is
    tested is what is installed, and stays as it is.
    """
    candidates = [package / '.mim' / 'configs', package.parent / 'configs']
    configs = next((path for path in candidates if path.is_dir()), None)
    if configs is None:
        raise InputError(f'the mmdet in {package} carries no configs')
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'mmdet').symlink_to(package, target_is_directory=True)
    (folder / 'configs').symlink_to(configs.resolve(), target_is_directory=True)
    shutil.copytree(tree / 'tests', folder / 'tests', ignore=shutil.ignore_patterns('__pycache__'))
    (folder / 'pytest.ini').write_text('[pytest]\n', encoding='utf-8')


def run(folder: Path, requirements: Path, *, adapters: bool = False, arguments: Sequence[str] = ()) -> int:
    """Run the tests laid out in ``folder``, or with ``adapters`` those of the detectors that have one.

    Returns pytest's exit status.
    """
    options = ['-p', 'mmdet_suite.plugin', '-p', 'no:cacheprovider', '-c', 'pytest.ini', '-q', '-W', 'ignore']
    if adapters:
        options.append('--adapters')
    paths = [folder, ROOT, ROOT / 'tests', requirements]
    inherited = os.environ.get('PYTHONPATH')
    python_path = os.pathsep.join([*map(str, paths), *([inherited] if inherited else [])])
    return subprocess.run(
        [sys.executable, '-m', 'pytest', *options, *arguments, *targets(folder, adapters)],
        cwd=folder,
        env={**os.environ, 'PYTHONPATH': python_path},
    ).returncode
