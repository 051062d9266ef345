"""Which packages are installed, whether they fit, and the command that mends what does not. Imports none of them."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
from collections.abc import Collection, Mapping
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import NamedTuple

from ..version import FAMILIES, TORCH_MINIMUM, Package

MODULES = ('mmengine', 'mmcv', 'mmdet')


class Finding(NamedTuple):
    """One thing noticed about the environment; ``error`` means that training cannot run, ``note`` that it can."""

    level: str
    text: str
    remedy: str


def find_module(name: str) -> ModuleSpec | None:
    """Where a top-level module would be imported from, without importing it; None when it is nowhere."""
    try:
        return importlib.util.find_spec(name)
    except (ImportError, ValueError):  # ValueError: something put a module without a spec into sys.modules
        return None


def mmdet_installed() -> bool:
    """Whether mmdet is there, from an installed package or from a source tree on the path. Imports nothing."""
    return find_module('mmdet') is not None or 'mmdet' in (
        package.module for _, package, _ in _installed_packages(_versions())
    )


def installed_versions() -> dict[str, str]:
    """Name and version of every distribution of either family.

    A source tree that is on the path without having been installed has no metadata; its version is then read from its
    ``version.py``, under the family's OpenMMLab name, because the ``onedl-*`` trees cannot be imported uninstalled.
    """
    versions = _versions()
    for module in MODULES:
        known = any(package.module == module for _, package, _ in _installed_packages(versions))
        source = None if known else _version_in_source(module)
        if source is not None:
            versions[module] = source
    return versions


def family_of(installed: Mapping[str, str]) -> str | None:
    """The family found; where both are, the one whose mmdet is installed (``onedl`` when that does not decide)."""
    present = _installed_packages(installed)
    names = [family for family in FAMILIES if any(entry[0] == family for entry in present)]
    with_mmdet = [family for family in names if any(e[0] == family and e[1].module == 'mmdet' for e in present)]
    return next(iter(with_mmdet + names), None)


def install_line(family: str) -> str:
    """The command that installs the tested versions of a family."""
    return 'python -m pip install ' + ' '.join(package.pin for package in FAMILIES[family])


def compiled_ops_line(family: str) -> str:
    """The command that brings mmcv with compiled operators; both ways need a torch that is already installed."""
    mmcv = next(package for package in FAMILIES[family] if package.module == 'mmcv')
    if family == 'onedl':
        return f'python -m pip install --no-build-isolation --no-deps --no-cache-dir --force-reinstall {mmcv.pin}'
    uninstall = 'python -m pip uninstall -y mmcv-lite && python -m pip install openmim'
    return f'{uninstall} && python -m mim install mmcv=={mmcv.tested}'


def diagnose(installed: Mapping[str, str], importable: Collection[str] = MODULES) -> list[Finding]:
    """What is wrong with a set of installed packages, and the command that mends it.

    ``installed`` maps distribution names to versions (see :func:`installed_versions`), ``importable`` names those of
    the three shared modules whose files are really there. An empty list means that training can run.
    """
    present = _installed_packages(installed)
    family = family_of(installed)
    if family is None:
        return [Finding('error', 'mmengine, mmcv and mmdet are not installed', install_line('onedl'))]
    if {entry[0] for entry in present} == set(FAMILIES):
        return [_mixed(present, family)]
    findings: list[Finding] = []
    for package in FAMILIES[family]:
        names = [name for _, owner, name in present if owner is package]
        findings += _check_package(family, package, {name: installed[name] for name in names}, importable)
    return findings


def check_environment() -> None:
    """Raise ImportError, with what was found and the command that mends it, if the installed packages do not fit.

    Reads metadata only and imports nothing. Without mmdet there is nothing to check: ``mmdet_iouquery.core`` needs
    torch alone.
    """
    if not mmdet_installed():
        return
    installed = installed_versions()
    importable = [module for module in MODULES if find_module(module) is not None]
    findings = diagnose(installed, importable)
    findings += torch_findings(distribution_version('torch'), missing=find_module('torch') is None)
    errors = [finding for finding in findings if finding.level == 'error']
    if errors:
        raise ImportError(environment_message(installed, errors))


def torch_findings(version: str | None, *, missing: bool) -> list[Finding]:
    """What is wrong with torch: it is missing, or of a version that is too old; None: of one that is not known."""
    line = 'python -m pip install torch (which build: https://pytorch.org/get-started/locally)'
    if missing:
        return [Finding('error', 'torch is not installed', line)]
    if version is not None and is_older(version, TORCH_MINIMUM):
        text = f"torch {version} is older than {TORCH_MINIMUM}, and cannot read a training's checkpoints safely"
        return [Finding('error', text, line.replace('torch', f'"torch>={TORCH_MINIMUM}"', 1))]
    return []


def environment_message(installed: Mapping[str, str], errors: Collection[Finding]) -> str:
    """The text of the error that :func:`check_environment` raises."""
    versions = ', '.join(f'{name} {installed[name]}' for name in sorted(installed)) or 'nothing'
    lines = ['mmdet_iouquery cannot run with the packages installed here.', f'  found: {versions}']
    for finding in errors:
        lines += [f'  problem: {finding.text}', f'    remedy: {finding.remedy}']
    for family, packages in FAMILIES.items():
        lines.append(f'  supported ({family}): ' + ', '.join(package.requirement for package in packages))
    return '\n'.join([*lines, '  for the whole image: python -m mmdet_iouquery.doctor'])


def in_range(package: Package, version: str) -> bool:
    """Whether a version lies in the package's allowed range; a version that cannot be parsed does not."""
    from packaging.specifiers import SpecifierSet
    from packaging.version import InvalidVersion

    try:
        return SpecifierSet(package.allowed).contains(version, prereleases=True)
    except InvalidVersion:
        return False


def is_older(version: str, than: str) -> bool:
    """Whether a version comes before another; one that cannot be parsed does not."""
    from packaging.version import InvalidVersion, Version

    try:
        return Version(version) < Version(than)
    except InvalidVersion:
        return False


def _versions() -> dict[str, str]:
    names = [name for packages in FAMILIES.values() for package in packages for name in package.distributions]
    versions = {name: distribution_version(name) for name in names}
    return {name: version for name, version in versions.items() if version is not None}


def distribution_version(name: str) -> str | None:
    """The installed version of a distribution; None when it is not installed, ``unknown`` with damaged metadata."""
    try:
        return importlib.metadata.version(name) or 'unknown'
    except importlib.metadata.PackageNotFoundError:
        return None
    except KeyError:  # a METADATA file without the field, on Python >= 3.12
        return 'unknown'


def _installed_packages(installed: Mapping[str, str]) -> list[tuple[str, Package, str]]:
    """Family, package and distribution name of everything installed that belongs to a family."""
    rows = [(family, package) for family, packages in FAMILIES.items() for package in packages]
    return [(family, package, name) for family, package in rows for name in package.distributions if name in installed]


def _version_in_source(module: str) -> str | None:
    spec = find_module(module)
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).with_name('version.py')
    text = path.read_text(encoding='utf-8') if path.is_file() else ''
    match = re.search(r"^__version__\s*=\s*['\"]([^'\"]+)", text, flags=re.MULTILINE)
    return match.group(1) if match else None


def _mixed(installed: list[tuple[str, Package, str]], keep: str) -> Finding:
    names = [name for _, _, name in installed]
    text = f'packages of both families are installed ({", ".join(names)}): each overwrites the files of the other'
    return Finding('error', text, f'python -m pip uninstall -y {" ".join(names)} && {install_line(keep)}')


def _check_package(
    family: str, package: Package, versions: Mapping[str, str], importable: Collection[str]
) -> list[Finding]:
    if not versions:
        return [Finding('error', f'{package.module} is missing ({family})', f'python -m pip install {package.pin}')]
    install = f'python -m pip install {package.pin}'
    replace = f'python -m pip uninstall -y {" ".join(versions)} && {install}'
    outside = {name: version for name, version in versions.items() if not in_range(package, version)}
    if outside:
        name, version = next(iter(outside.items()))
        text = f'{name} {version} is outside the supported range {package.allowed}'
        return [Finding('error', text, install if list(versions) == [package.distributions[0]] else replace)]
    if package.module not in importable:
        name, version = next(iter(versions.items()))
        text = f'{name} {version} is registered as installed but its files are gone'
        line = f'python -m pip install --force-reinstall --no-deps {name}=={version}'
        return [Finding('error', text, line)]
    if len(versions) > 1:
        return [Finding('note', f'{" and ".join(versions)} are both installed and share their files', replace)]
    return []
