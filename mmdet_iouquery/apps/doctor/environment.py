"""What is installed, what is missing, what will be slow, and how to mend it.

:func:`gather` looks at the machine, :func:`examine` judges what it saw and touches nothing, :func:`render` prints it.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from ... import compat
from ...compat import Finding
from ...version import FAMILIES, PYTHON_MINIMUM_OF_FAMILY, TORCH_TESTED, Package, __version__

OPTIONAL = {
    'safetensors': 'reading .safetensors files of other projects',
    'scikit-learn': 'the sample set of the quick start',
    'transformers': 'comparing against another implementation in the tests',
    'tqdm': 'progress bars',
    'matplotlib': 'plots',
    'faster-coco-eval': 'faster COCO evaluation, by FastCocoMetric',
    'onnx': 'writing .onnx files',
    'onnxruntime': 'running .onnx files',
    'openvino': 'writing and running .xml files',
    'nncf': 'eight bits: iouquery quantize',
    'huggingface-hub': 'weights and models on the Hugging Face Hub',
    'ray': 'iouquery predict on many CPUs, GPUs or machines',
}
REQUIRED = {'numpy': 'numpy', 'cv2': 'opencv-python', 'pycocotools': 'pycocotools', 'scipy': 'scipy'}
OPENCV = ('opencv-python', 'opencv-python-headless', 'opencv-contrib-python', 'opencv-contrib-python-headless')
PROBED = ('torch', *REQUIRED, 'mmengine', 'mmcv')
FEW_CORES = 4


@dataclass(frozen=True)
class Torch:
    """What the imported torch says about itself; ``cuda_build`` is None for a CPU build."""

    cuda_build: str | None = None
    cuda_available: bool = False
    device: str = ''
    threads: int = 1
    slow_bfloat16: bool = False


@dataclass(frozen=True)
class Attention:
    """The back end that deformable attention takes on this machine, and why not others that are faster on some."""

    chosen: str
    others: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Facts:
    """What :func:`gather` saw.

    ``installed`` maps distributions to versions, ``failures`` maps a module or a part of this package to the reason why
    it does not import, ``absent`` names modules of interest that are nowhere on the path, ``ops`` is the state of
    mmcv's compiled operators (:func:`compat.ops_state`), and ``cores`` counts those this process may use;
    ``attention`` is None where the parts do not import.
    """

    python: str
    system: str
    cores: int
    installed: Mapping[str, str]
    failures: Mapping[str, str] = field(default_factory=dict)
    absent: frozenset[str] = frozenset()
    ops: str = 'missing'
    torch: Torch | None = None
    attention: Attention | None = None


class Row(NamedTuple):
    """One line of the table; ``note`` says how the value compares with what was tested."""

    section: str
    name: str
    value: str
    note: str = ''


class Report(NamedTuple):
    """The table, the problems with their remedies, and what will be slow."""

    rows: list[Row]
    findings: list[Finding]
    slow: list[str]

    @property
    def can_train(self) -> bool:
        return all(finding.level != 'error' for finding in self.findings)


# --- look -------------------------------------------------------------------------------------------------------------


def gather() -> Facts:
    """Look at this interpreter and machine. Imports are tried, and a failing one is recorded instead of raised."""
    modules = (*PROBED, 'mmdet', 'torchvision', 'pkg_resources', 'distutils', 'packaging')
    absent = frozenset(name for name in modules if compat.find_module(name) is None)
    failures = _failures(name for name in (*PROBED, 'torchvision') if name not in absent)
    facts = Facts(
        python=platform.python_version(),
        system=f'{platform.system()} {platform.release()} {platform.machine()}',
        cores=_usable_cores(),
        installed=_installed(),
        failures=failures,
        absent=absent,
        ops=compat.ops_state(),
        torch=None if 'torch' in failures or 'torch' in absent else _probe_torch(),
    )
    return facts if any(finding.level == 'error' for finding in _findings(facts)) else _try_parts(facts)


def _failures(modules: Iterable[str]) -> dict[str, str]:
    failures: dict[str, str] = {}
    for name in modules:
        reason = _import_error(name)
        if reason is not None:
            failures[name] = reason
    return failures


def _import_error(module: str) -> str | None:
    """Why a module does not import, in one line; None when it does. Broken binaries raise almost anything."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            importlib.import_module(module)
    except (Exception, SystemExit) as error:
        lines = str(error).strip().splitlines() or ['']
        return f'{type(error).__name__}: {lines[0]}'
    return None


def _installed() -> dict[str, str]:
    names = ('torch', 'torchvision', 'setuptools', 'packaging', *REQUIRED, *OPENCV, *OPTIONAL)
    versions = {name: compat.distribution_version(name) for name in names}
    present = {name: version for name, version in versions.items() if version is not None}
    return {**present, **compat.installed_versions()}


def _usable_cores() -> int:
    if hasattr(os, 'sched_getaffinity'):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _probe_torch() -> Torch | None:
    try:
        import torch

        available = torch.cuda.is_available()
        device = torch.cuda.get_device_name(0) if available else ''
        return Torch(
            torch.version.cuda, available, device, torch.get_num_threads(), not compat.computes_fast(torch.bfloat16)
        )
    except Exception:  # a driver that does not answer must not end the doctor; the table then shows no device
        return None


def _try_parts(facts: Facts) -> Facts:
    """Import what a config would: mmdet and the registered parts, with the stand-in for operators where needed."""
    try:
        compat.install_ops_stand_in()
    except ImportError as error:
        reason = str(error).splitlines()[0]
        return replace(facts, failures={**facts.failures, 'mmcv._ext': reason}, ops='broken')
    package = (__package__ or 'mmdet_iouquery').split('.')[0]
    failures = _failures(['mmdet.models', *(f'{package}.{name}' for name in ('models', 'datasets', 'engine'))])
    attention = None if failures else _probe_attention(facts)
    return replace(facts, failures={**facts.failures, **failures}, ops=compat.ops_state(), attention=attention)


def _probe_attention(facts: Facts) -> Attention:
    import torch

    from ...core.deformable_attention import BACKENDS, choose_backend, why_not

    device = torch.device('cuda' if facts.torch is not None and facts.torch.cuda_available else 'cpu')
    points = (4, 4, 4)
    reasons = {name: why_not(name, device, points, 'bilinear') for name in BACKENDS}
    return Attention(choose_backend(device, points), {name: text for name, text in reasons.items() if text})


# --- judge ------------------------------------------------------------------------------------------------------------


def examine(facts: Facts) -> Report:
    """Turn facts into the table, the problems and what will be slow."""
    return Report(_rows(facts), _findings(facts), _slow(facts))


def _rows(facts: Facts) -> list[Row]:
    family = compat.family_of(facts.installed)
    rows = [
        Row('machine', 'Python', facts.python),
        Row('machine', 'system', facts.system),
        Row('machine', 'CPU cores', str(facts.cores)),
        Row('packages', 'mmdet_iouquery', __version__),
        _torch_row(facts),
        Row('packages', 'family', family or 'none found', f'supported: {", ".join(FAMILIES)}'),
    ]
    for package in FAMILIES[family] if family else ():
        rows += _family_rows(package, facts.installed)
    rows.append(Row('packages', 'mmcv operators', facts.ops))
    if facts.attention is not None:
        others = '; '.join(f'not {name}: {reason}' for name, reason in facts.attention.others.items())
        rows.append(Row('packages', 'deformable attention', facts.attention.chosen, others))
    rows += [Row('packages', module, _state(module, name, facts)) for module, name in REQUIRED.items()]
    if 'torchvision' in facts.installed:
        rows.append(Row('packages', 'torchvision', _state('torchvision', 'torchvision', facts), 'not needed'))
    rows += [Row('optional', name, facts.installed.get(name, 'not installed'), use) for name, use in OPTIONAL.items()]
    return rows


def _torch_row(facts: Facts) -> Row:
    version = facts.installed.get('torch', 'not installed')
    if facts.torch is None:
        return Row('packages', 'torch', version, facts.failures.get('torch', 'not usable'))
    build = f'CUDA {facts.torch.cuda_build}' if facts.torch.cuda_build else 'CPU build'
    device = facts.torch.device if facts.torch.cuda_available else 'no CUDA device'
    tested = 'tested' if version.split('+')[0] == TORCH_TESTED else f'tested: {TORCH_TESTED}'
    return Row('packages', 'torch', version, f'{build}, {device}, {facts.torch.threads} threads; {tested}')


def _family_rows(package: Package, installed: Mapping[str, str]) -> list[Row]:
    names = [name for name in package.distributions if name in installed]
    if not names:
        return [Row('packages', package.distributions[0], 'missing', f'supported: {package.allowed}')]
    return [Row('packages', name, installed[name], _compare(package, installed[name])) for name in names]


def _compare(package: Package, version: str) -> str:
    try:
        supported = compat.in_range(package, version)
    except ImportError:  # without packaging versions cannot be compared; that is reported as a finding of its own
        return ''
    if not supported:
        return f'not supported: needs {package.allowed}'
    return 'tested' if version.split('+')[0] == package.tested else f'supported; tested: {package.tested}'


def _state(module: str, distribution: str, facts: Facts) -> str:
    names = OPENCV if module == 'cv2' else (distribution,)
    versions = ', '.join(f'{name} {facts.installed[name]}' for name in names if name in facts.installed)
    if module in facts.absent:
        return 'not installed'
    return f'{versions or "found"}{" (broken)" if module in facts.failures else ""}'.replace(f'{module} ', '', 1)


def _findings(facts: Facts) -> list[Finding]:
    findings = _torch_findings(facts) + _family_findings(facts)
    findings += _required_findings(facts) + _python_findings(facts) + _opencv_findings(facts)
    return findings + _torchvision_findings(facts) + _part_findings(facts)


def _family_findings(facts: Facts) -> list[Finding]:
    importable = [module for module in compat.MODULES if module not in facts.absent]
    if 'packaging' not in facts.absent:
        return compat.diagnose(facts.installed, importable)
    missing = Finding('error', 'packaging is not installed', 'python -m pip install packaging')
    # without it versions cannot be compared; that there is no family at all can still be said
    return [missing] if compat.family_of(facts.installed) else [missing, *compat.diagnose({})]


def _torch_findings(facts: Facts) -> list[Finding]:
    if 'torch' in facts.absent:
        return compat.torch_findings(None, missing=True)
    if 'torch' in facts.failures:
        line = 'python -m pip install --force-reinstall torch'
        return [Finding('error', f'torch does not import: {facts.failures["torch"]}', line)]
    if 'packaging' in facts.absent:  # without it versions cannot be compared; that is a finding of its own
        return []
    return compat.torch_findings(facts.installed.get('torch'), missing=False)


def _required_findings(facts: Facts) -> list[Finding]:
    findings = []
    for module, distribution in REQUIRED.items():
        if module in facts.absent:
            line = f'python -m pip install {distribution}'
            findings.append(Finding('error', f'{distribution} is not installed', line))
        elif module in facts.failures:
            text = f'{module} does not import: {facts.failures[module]}'
            findings.append(Finding('error', text, _mend_import(module, distribution, facts)))
    return findings


def _mend_import(module: str, distribution: str, facts: Facts) -> str:
    if module != 'cv2':
        return f'python -m pip install --force-reinstall {distribution}'
    installed = ' '.join(name for name in OPENCV if name in facts.installed) or distribution
    return f'python -m pip uninstall -y {installed} && python -m pip install opencv-python-headless'


def _python_findings(facts: Facts) -> list[Finding]:
    family = compat.family_of(facts.installed)
    major, minor = (int(number) for number in facts.python.split('.')[:2])
    findings = []
    if family and (major, minor) < PYTHON_MINIMUM_OF_FAMILY[family]:
        needed = '.'.join(map(str, PYTHON_MINIMUM_OF_FAMILY[family]))
        text = f'the {family} packages need Python >= {needed}'
        findings.append(Finding('error', text, 'make setup PYTHON=<a newer python>, or the other family'))
    if 'distutils' in facts.absent and family:
        text = 'mmengine needs distutils to start a training; from Python 3.12 on setuptools provides it'
        findings.append(Finding('error', text, 'python -m pip install "setuptools<82"'))
    elif 'pkg_resources' in facts.absent and family == 'openmmlab':
        text = "mmengine needs pkg_resources for configs named 'mmdet::...'; setuptools dropped it in 82"
        findings.append(Finding('note', text, 'python -m pip install "setuptools<82"'))
    return findings


def _opencv_findings(facts: Facts) -> list[Finding]:
    present = [name for name in OPENCV if name in facts.installed]
    if len({facts.installed[name] for name in present}) < 2:  # of equal versions the files are the same
        return []
    text = f'{" and ".join(present)} share one folder, cv2; their versions differ: cv2 may be damaged'
    return [
        Finding('note', text, f'python -m pip uninstall -y {" ".join(present)} && python -m pip install {present[0]}')
    ]


def _torchvision_findings(facts: Facts) -> list[Finding]:
    if 'torchvision' not in facts.failures:
        return []
    text = f'torchvision is not needed, but it is there and broken: {facts.failures["torchvision"]}'
    return [Finding('note', text, 'python -m pip uninstall -y torchvision')]


def _part_findings(facts: Facts) -> list[Finding]:
    family = compat.family_of(facts.installed) or 'onedl'
    parts = [name for name in facts.failures if name not in (*REQUIRED, 'torch', 'torchvision')]
    findings = []
    for name in parts:
        line = compat.compiled_ops_line(family) if name == 'mmcv._ext' else compat.install_line(family)
        findings.append(Finding('error', f'{name} does not import: {facts.failures[name]}', line))
    return findings


def _slow(facts: Facts) -> list[str]:
    lines = []
    if facts.torch is not None and not facts.torch.cuda_available:
        why = 'the driver offers no device to it' if facts.torch.cuda_build else 'this torch is a CPU build'
        lines.append(f'no CUDA ({why}): training runs on {_count(facts.torch.threads, "CPU thread")}')
        if facts.torch.slow_bfloat16:
            lines.append('bfloat16: this CPU has no instructions for it, float32 is several times as fast')
    if facts.ops in ('stand-in', 'missing'):
        family = compat.family_of(facts.installed) or 'onedl'
        lines.append(
            'mmcv has no compiled operators: our models do not need them, those of mmdet that use NMS, RoIAlign or '
            f'deformable convolution cannot run; to have them: {compat.compiled_ops_line(family)}'
        )
    if facts.attention is not None and facts.attention.chosen == 'grid_sample':
        lines.append('deformable attention is plain PyTorch (grid_sample): python -m pip install triton')
    if facts.cores <= FEW_CORES:
        lines.append(
            f'{_count(facts.cores, "CPU core")} for loading and augmenting images: num_workers above that does not help'
        )
    return lines


def _count(number: int, noun: str) -> str:
    return f'{number} {noun}' if number == 1 else f'{number} {noun}s'


# --- say --------------------------------------------------------------------------------------------------------------


def render(report: Report) -> str:
    """The report as text for a terminal."""
    widths = [max(len(row[column]) for row in report.rows) for column in (1, 2)]
    lines: list[str] = []
    section = ''
    for row in report.rows:
        lines += ['', row.section] if row.section != section else []
        section = row.section
        lines.append(f'  {row.name:<{widths[0]}}  {row.value:<{widths[1]}}  {row.note}'.rstrip())
    lines += ['', 'slow', *(f'  - {line}' for line in report.slow)] if report.slow else []
    if report.findings:
        lines += ['', 'problems']
    for finding in sorted(report.findings, key=lambda item: item.level != 'error'):
        lines += [f'  {finding.level}: {finding.text}', f'    remedy: {finding.remedy}']
    verdict = 'training can run' if report.can_train else 'training cannot run: see the errors above'
    return '\n'.join([*lines, '', verdict]).lstrip('\n')


def to_json(report: Report) -> str:
    """The report as JSON: ``can_train``, ``rows``, ``findings``, ``slow``."""
    rows = [row._asdict() for row in report.rows]
    findings = [finding._asdict() for finding in report.findings]
    return json.dumps(dict(can_train=report.can_train, rows=rows, findings=findings, slow=report.slow), indent=2)
