"""What this project has to know about the inside of mmengine, mmcv and torch: no other file looks in there.

Five subjects: which packages are installed and whether they fit (:func:`diagnose`), mmcv without compiled operators
(:func:`install_ops_stand_in`), training checkpoints under torch >= 2.6 (:func:`allow_own_checkpoints`), the
name under which a runner writes down its config (:func:`dumped_as`), and oneDNN's layers with packed weights
(:func:`packs_weights`).
"""

from __future__ import annotations

import copy
import importlib
import importlib.metadata
import importlib.util
import re
import sys
from collections.abc import Collection, Mapping
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, Callable, NamedTuple, NoReturn

from .version import FAMILIES, Package

MODULES = ('mmengine', 'mmcv', 'mmdet')


class Finding(NamedTuple):
    """One thing noticed about the environment; ``error`` means that training cannot run, ``note`` that it can."""

    level: str
    text: str
    remedy: str


# --- which packages are here ------------------------------------------------------------------------------------------


def find_module(name: str) -> ModuleSpec | None:
    """Where a top-level module would be imported from, without importing it; None when it is nowhere."""
    try:
        return importlib.util.find_spec(name)
    except (ImportError, ValueError):  # ValueError: something put a module without a spec into sys.modules
        return None


def mmdet_installed() -> bool:
    """Whether mmdet is there, from an installed package or from a source tree on the path. Imports nothing."""
    return find_module('mmdet') is not None or 'mmdet' in (package.module for _, package, _ in _found(_versions()))


def installed_versions() -> dict[str, str]:
    """Name and version of every distribution of either family.

    A source tree that is on the path without having been installed has no metadata; its version is then read from its
    ``version.py``, under the family's OpenMMLab name, because the ``onedl-*`` trees cannot be imported uninstalled.
    """
    versions = _versions()
    for module in MODULES:
        known = any(package.module == module for _, package, _ in _found(versions))
        source = None if known else _version_in_source(module)
        if source is not None:
            versions[module] = source
    return versions


def family_of(installed: Mapping[str, str]) -> str | None:
    """The family found; where both are, the one whose mmdet is installed (``onedl`` when that does not decide)."""
    found = _found(installed)
    names = [family for family in FAMILIES if any(entry[0] == family for entry in found)]
    with_mmdet = [family for family in names if any(e[0] == family and e[1].module == 'mmdet' for e in found)]
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
    found = _found(installed)
    family = family_of(installed)
    if family is None:
        return [Finding('error', 'mmengine, mmcv and mmdet are not installed', install_line('onedl'))]
    if {entry[0] for entry in found} == set(FAMILIES):
        return [_mixed(found, family)]
    findings: list[Finding] = []
    for package in FAMILIES[family]:
        names = [name for _, owner, name in found if owner is package]
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
    if find_module('torch') is None:
        findings.append(Finding('error', 'torch is not installed', 'see https://pytorch.org/get-started/locally'))
    errors = [finding for finding in findings if finding.level == 'error']
    if errors:
        raise ImportError(environment_message(installed, errors))


def environment_message(installed: Mapping[str, str], errors: Collection[Finding]) -> str:
    """The text of the error that :func:`check_environment` raises."""
    found = ', '.join(f'{name} {installed[name]}' for name in sorted(installed)) or 'nothing'
    lines = ['mmdet_iouquery cannot run with the packages installed here.', f'  found: {found}']
    for finding in errors:
        lines += [f'  problem: {finding.text}', f'    mend it: {finding.remedy}']
    for family, packages in FAMILIES.items():
        lines.append(f'  supported ({family}): ' + ', '.join(package.requirement for package in packages))
    return '\n'.join([*lines, '  for the whole picture: python -m mmdet_iouquery.doctor'])


def in_range(package: Package, version: str) -> bool:
    """Whether a version lies in the package's allowed range; a version that cannot be parsed does not."""
    from packaging.specifiers import SpecifierSet
    from packaging.version import InvalidVersion

    try:
        return SpecifierSet(package.allowed).contains(version, prereleases=True)
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


def _found(installed: Mapping[str, str]) -> list[tuple[str, Package, str]]:
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


def _mixed(found: list[tuple[str, Package, str]], keep: str) -> Finding:
    names = [name for _, _, name in found]
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


# --- mmcv without compiled operators ----------------------------------------------------------------------------------


class _OpsStandIn(ModuleType):
    """Takes the place of ``mmcv._ext``: each operator exists, so that modules import, and says why when it is called.

    Names that begin with an underscore are left undefined, so that import machinery, ``inspect`` and ``pickle`` see a
    module without file and without path. The two questions about the compiler are answered as mmcv's ``collect_env``
    answers them without operators.
    """

    def __getattr__(self, name: str) -> Callable[..., str]:
        if name.startswith('_'):
            raise AttributeError(f'module {self.__name__!r} has no attribute {name!r}')
        answers = name in ('get_compiler_version', 'get_compiling_cuda_version')
        operator = _not_available if answers else _missing_operator(name)
        setattr(self, name, operator)
        return operator


def _not_available() -> str:
    return 'n/a'


def _missing_operator(name: str) -> Callable[..., NoReturn]:
    def operator(*args: object, **kwargs: object) -> NoReturn:
        family = family_of(installed_versions()) or 'openmmlab'
        raise RuntimeError(
            f'the compiled mmcv operator {name!r} was called, but the mmcv installed here has no compiled operators. '
            'RT-DETR and the other parts of mmdet_iouquery use none; for a detector that does: '
            f'{compiled_ops_line(family)}'
        )

    assert isinstance(operator, FunctionType)
    operator.__name__ = operator.__qualname__ = name
    operator.__module__ = 'mmcv._ext'
    return operator


def ops_state() -> str:
    """``compiled``, ``stand-in``, ``missing`` (mmcv without operators, no stand-in yet) or ``no mmcv``."""
    module = sys.modules.get('mmcv._ext')
    if module is not None:
        return 'stand-in' if isinstance(module, _OpsStandIn) else 'compiled'
    spec = find_module('mmcv')
    if spec is None:
        return 'no mmcv'
    return 'missing' if PathFinder.find_spec('mmcv._ext', spec.submodule_search_locations) is None else 'compiled'


def install_ops_stand_in() -> None:
    """Make ``import mmdet`` work where mmcv has no compiled operators. Compiled operators are left untouched.

    mmdet imports ``mmcv.ops``, and every module in there asks ``mmcv._ext`` for its operators at import. Must run
    before mmdet is imported; calling it again changes nothing.

    Raises:
        ImportError: compiled operators exist but do not load, as happens when they were built for another torch.
    """
    state = ops_state()
    if state == 'compiled':
        _require_loadable_ops()
    if state != 'missing':
        return
    stand_in = _OpsStandIn('mmcv._ext', 'Stand-in of mmdet_iouquery for the compiled operators of mmcv.')
    stand_in.__spec__ = ModuleSpec('mmcv._ext', loader=None, origin='mmdet_iouquery.compat')
    stand_in.__package__ = 'mmcv'
    mmcv = importlib.import_module('mmcv')
    sys.modules['mmcv._ext'] = stand_in
    mmcv._ext = stand_in  # type: ignore[attr-defined]


def _require_loadable_ops() -> None:
    if 'mmcv._ext' in sys.modules:
        return
    try:
        importlib.import_module('torch')  # the operators link against torch's libraries
        importlib.import_module('mmcv._ext')
    except ImportError as error:
        family = family_of(installed_versions()) or 'openmmlab'
        raise ImportError(
            f'mmcv or its compiled operators do not load: {error}\n'
            '  the usual reason is that they were built for another version of torch\n'
            f'  build them again: {compiled_ops_line(family)}\n'
            f'  or do without them: python -m pip uninstall -y onedl-mmcv mmcv && {install_line(family)} --no-cache-dir'
        ) from error


# --- checkpoints under torch >= 2.6 -----------------------------------------------------------------------------------

STATISTICS = ('min', 'max', 'current', 'mean')


def allow_own_checkpoints() -> None:
    """Let ``torch.load`` read the training checkpoints that mmengine writes, without allowing code to run.

    From torch 2.6 on, ``torch.load`` accepts only tensors and plain containers. A checkpoint of mmengine's Runner also
    holds the log history (``HistoryBuffer``, numpy arrays and scalars), and mmengine 0.10.7 then cannot resume. The
    types that it needs, and nothing else, are named here through ``torch.serialization.add_safe_globals``.

    ``HistoryBuffer`` pickles its statistics as ``getattr(HistoryBuffer, 'mean')``. The real ``getattr`` would let a
    file reach any attribute, so the name is answered by :func:`_history_statistic`, which knows these methods only.
    Therefore a checkpoint whose owner registered statistics of their own, or put other objects into the message hub,
    is still refused by torch; it has to be loaded with ``weights_only=False`` by someone who trusts it.

    Every entry is a pair (object, name) and not the bare object, because newer mmengine takes the bare objects off the
    list again after each of its own loads. Does nothing with torch < 2.6 or without mmengine.
    """
    if find_module('torch') is None or find_module('mmengine') is None:
        return
    import torch

    if not hasattr(torch.serialization, 'get_unsafe_globals_in_checkpoint'):  # came with the strict default, in 2.6
        return
    torch.serialization.add_safe_globals(_safe_objects())


def _safe_objects() -> list[Any]:
    import numpy as np
    from mmengine.logging.history_buffer import HistoryBuffer

    reconstruct, scalar = np.zeros(1).__reduce__()[0], np.float64(0).__reduce__()[0]
    objects: list[Any] = [
        (HistoryBuffer, 'mmengine.logging.history_buffer.HistoryBuffer'),
        (_history_statistic, 'builtins.getattr'),
        (np.ndarray, 'numpy.ndarray'),
        (np.dtype, 'numpy.dtype'),
    ]
    for module in ('numpy.core.multiarray', 'numpy._core.multiarray'):  # as written by numpy 1 and by numpy 2
        objects += [(reconstruct, f'{module}._reconstruct'), (scalar, f'{module}.scalar')]
    for dtype in {type(np.dtype(code)) for code in '?bBhHiIlLqQefdSU'}:
        objects.append((dtype, f'{dtype.__module__}.{dtype.__qualname__}'))
    return objects


def _history_statistic(owner: object, name: str) -> object:
    """The one use of ``getattr`` that a checkpoint is granted: a statistic of ``HistoryBuffer``."""
    import pickle

    from mmengine.logging.history_buffer import HistoryBuffer

    if owner is not HistoryBuffer or name not in STATISTICS:
        raise pickle.UnpicklingError(f'a checkpoint may not read the attribute {name!r} of {owner!r}')
    return getattr(HistoryBuffer, name)


# --- configs ----------------------------------------------------------------------------------------------------------


def dumped_as(cfg: Any, name: str) -> Any:
    """A copy of an mmengine ``Config`` that a runner writes into its work folder as ``name``.

    A runner writes the resolved config under the base name of the file that it was read from.
    """
    cfg = copy.deepcopy(cfg)
    state = list(cfg.__getstate__())
    if state[1] != cfg.filename:
        raise RuntimeError(f'mmengine {distribution_version("mmengine")} keeps a Config in another way than is known')
    state[1] = str(Path(cfg.filename).with_name(name))
    cfg.__setstate__(tuple(state))
    return cfg


# --- oneDNN's layers --------------------------------------------------------------------------------------------------

PACKED_ACTIVATIONS = {None: 'none', 'relu': 'relu', 'silu': 'swish'}
"""Of :func:`run_packed_convolution`, by their names in torch."""


@cache
def packs_weights(dtype: Any) -> bool:
    """Whether torch offers oneDNN's layers with packed weights, as its compiler uses them, for a type of numbers.

    They are no public interface, so they are tried once, on small layers whose results are known.
    """
    import torch

    if not torch.backends.mkldnn.is_available():
        return False
    x, weight = torch.ones(1, 16, 5, 5, dtype=dtype), torch.ones(32, 16, 3, 3, dtype=dtype)
    layout = (1, 1), (1, 1), (1, 1), 1
    try:
        packed = pack_convolution(weight, *layout, x.shape)
        y = run_packed_convolution(x, packed, None, *layout, 'relu')
        rows, matrix, bias = (torch.ones(shape, dtype=dtype) for shape in ((5, 16), (32, 16), 32))
        rows = run_packed_linear(rows, pack_linear(matrix, len(rows)), bias)
    except (AttributeError, RuntimeError, TypeError, NotImplementedError):
        return False
    convolves = y.shape == (1, 32, 5, 5) and bool((y[..., 1:4, 1:4] == 16 * 9).all())
    return convolves and rows.shape == (5, 32) and bool((rows == 17).all())


def pack_convolution(weight: Any, padding: Any, stride: Any, dilation: Any, groups: int, input_shape: Any) -> Any:
    """A convolution's weights as oneDNN wants them for inputs of a shape: a tensor that only it can read."""
    import torch

    return torch.ops.mkldnn._reorder_convolution_weight(
        weight, [*padding], [*stride], [*dilation], groups, [*input_shape]
    )


def run_packed_convolution(
    x: Any, packed: Any, bias: Any, padding: Any, stride: Any, dilation: Any, groups: int, activation: str
) -> Any:
    """A convolution and the activation after it, by packed weights."""
    import torch

    return torch.ops.mkldnn._convolution_pointwise(
        x, packed, bias, [*padding], [*stride], [*dilation], groups, activation, [], ''
    )


def pack_linear(weight: Any, rows: int) -> Any:
    """A linear layer's weights as oneDNN wants them for a number of rows: a tensor that only it can read."""
    import torch

    return torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), rows)


def run_packed_linear(rows: Any, packed: Any, bias: Any) -> Any:
    """A linear layer on rows (N, C), by packed weights."""
    import torch

    return torch.ops.mkldnn._linear_pointwise(rows, packed, bias, 'none', [], '')
