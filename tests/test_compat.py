"""The compatibility layer: which packages fit, mmcv without operators, checkpoints under the strict torch.load.

What changes a process for good runs in a process of its own, on packages made up in a temporary folder.
"""

from __future__ import annotations

import io
import os
import pickle
import re
import shutil
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import numpy as np
import packaging
import pytest
import torch
from mmengine.logging.history_buffer import HistoryBuffer
from mmengine.registry import Registry

from mmdet_iouquery import compat
from mmdet_iouquery.version import FAMILIES

ROOT = Path(__file__).resolve().parents[1]
ONEDL = {'onedl-mmengine': '0.10.12', 'onedl-mmcv': '2.3.6', 'onedl-mmdetection': '3.5.1'}
OPENMMLAB = {'mmengine': '0.10.7', 'mmcv-lite': '2.1.0', 'mmdet': '3.3.0'}


def run_bare(code: str, *folders: Path) -> subprocess.CompletedProcess[str]:
    """Run code in an interpreter that sees the standard library, this project and the given folders only."""
    paths = [str(folder) for folder in folders] + [str(ROOT)]
    script = f'import sys; sys.path[:0] = {paths!r}\n{textwrap.dedent(code)}'
    return subprocess.run([sys.executable, '-I', '-S', '-c', script], capture_output=True, text=True, timeout=120)


def make_site(folder: Path, versions: dict[str, str], modules: tuple[str, ...] = compat.MODULES) -> Path:
    """A folder like site-packages: metadata of the given distributions, empty modules, and the real packaging."""
    folder.mkdir()
    for name, version in versions.items():
        info = folder / f'{name.replace("-", "_")}-{version}.dist-info'
        info.mkdir()
        (info / 'METADATA').write_text(f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n')
    for module in modules:
        (folder / module).mkdir()
        (folder / module / '__init__.py').write_text('')
    shutil.copytree(Path(packaging.__file__).parent, folder / 'packaging')
    return folder


# --- which packages are here ------------------------------------------------------------------------------------------


@pytest.mark.parametrize('installed', [ONEDL, OPENMMLAB, {**OPENMMLAB, 'mmdet': '3.3.0+local.1'}])
def test_tested_versions_have_no_findings(installed: dict[str, str]) -> None:
    assert compat.diagnose(installed) == []


def test_tested_versions_lie_in_their_ranges() -> None:
    for packages in FAMILIES.values():
        assert [package.module for package in packages] == list(compat.MODULES)
        assert all(compat.in_range(package, package.tested) for package in packages)


@pytest.mark.parametrize(
    ('installed', 'text', 'remedy'),
    [
        (
            {**OPENMMLAB, 'mmengine': '0.9.1'},
            'mmengine 0.9.1 is outside the supported range >=0.10.6,<1.0',
            'python -m pip install mmengine==0.10.7',
        ),
        (
            {'mmengine': '0.10.7', 'mmcv': '2.2.0', 'mmdet': '3.3.0'},
            'mmcv 2.2.0 is outside the supported range >=2.0.0,<2.2',
            'python -m pip uninstall -y mmcv && python -m pip install mmcv-lite==2.1.0',
        ),
        (
            {'mmengine': '0.10.7', 'mmcv-full': '1.7.2', 'mmdet': '3.3.0'},
            'mmcv-full 1.7.2 is outside the supported range >=2.0.0,<2.2',
            'python -m pip uninstall -y mmcv-full && python -m pip install mmcv-lite==2.1.0',
        ),
        (
            {**OPENMMLAB, 'mmdet': '2.28.2'},
            'mmdet 2.28.2 is outside the supported range >=3.2,<4.0',
            'python -m pip install mmdet==3.3.0',
        ),
        (
            {**ONEDL, 'onedl-mmdetection': 'not a version'},
            'onedl-mmdetection not a version is outside the supported range >=3.4,<4.0',
            'python -m pip install onedl-mmdetection==3.5.1',
        ),
        (
            {'onedl-mmengine': '0.10.12', 'onedl-mmdetection': '3.5.1'},
            'mmcv is missing (onedl)',
            'python -m pip install onedl-mmcv==2.3.6',
        ),
        (
            {'mmcv-lite': '2.1.0', 'mmdet': '3.3.0'},
            'mmengine is missing (openmmlab)',
            'python -m pip install mmengine==0.10.7',
        ),
        (
            {},
            'mmengine, mmcv and mmdet are not installed',
            'python -m pip install onedl-mmengine==0.10.12 onedl-mmcv==2.3.6 onedl-mmdetection==3.5.1',
        ),
    ],
)
def test_one_error_with_the_line_that_mends_it(installed: dict[str, str], text: str, remedy: str) -> None:
    assert compat.diagnose(installed) == [compat.Finding('error', text, remedy)]


def test_mixed_families_keep_the_one_whose_mmdet_is_there() -> None:
    [finding] = compat.diagnose({**OPENMMLAB, 'onedl-mmcv': '2.3.6'})
    assert finding.level == 'error'
    assert 'onedl-mmcv, mmengine, mmcv-lite, mmdet' in finding.text
    uninstall, install = finding.remedy.split(' && ')
    assert uninstall == 'python -m pip uninstall -y onedl-mmcv mmengine mmcv-lite mmdet'
    assert install == 'python -m pip install mmengine==0.10.7 mmcv-lite==2.1.0 mmdet==3.3.0'


def test_metadata_without_files_is_an_error() -> None:
    [finding] = compat.diagnose(ONEDL, importable=['mmengine', 'mmdet'])
    assert finding.text == 'onedl-mmcv 2.3.6 is registered as installed but its files are gone'
    assert finding.remedy == 'python -m pip install --force-reinstall --no-deps onedl-mmcv==2.3.6'


def test_mmcv_and_mmcv_lite_together_are_only_a_note() -> None:
    [finding] = compat.diagnose({**OPENMMLAB, 'mmcv': '2.1.0'})
    assert (finding.level, finding.text) == ('note', 'mmcv-lite and mmcv are both installed and share their files')


def test_the_packages_of_this_environment_pass() -> None:
    installed = compat.installed_versions()
    assert compat.family_of(installed) in FAMILIES
    assert compat.diagnose(installed) == []
    assert compat.mmdet_installed()


def test_check_raises_one_clear_error(tmp_path: Path) -> None:
    site = make_site(tmp_path / 'site', {**OPENMMLAB, 'mmcv-lite': '2.2.0'}, (*compat.MODULES, 'torch'))
    result = run_bare('import mmdet_iouquery', site)
    assert result.returncode == 1
    message = result.stderr[result.stderr.index('ImportError') :]
    assert 'found: mmcv-lite 2.2.0, mmdet 3.3.0, mmengine 0.10.7' in message
    assert 'remedy: python -m pip install mmcv-lite==2.1.0' in message
    assert 'supported (openmmlab): mmengine>=0.10.6,<1.0, mmcv-lite>=2.0.0,<2.2, mmdet>=3.2,<4.0' in message


def test_check_speaks_before_a_broken_package_is_imported(tmp_path: Path) -> None:
    site = make_site(tmp_path / 'site', {**OPENMMLAB, **ONEDL}, (*compat.MODULES, 'torch'))
    (site / 'mmcv' / '__init__.py').write_text("raise AssertionError('mmcv was imported')")
    result = run_bare('import mmdet_iouquery', site)
    assert result.returncode == 1
    assert 'mmcv was imported' not in result.stderr
    assert 'packages of both families are installed' in result.stderr


def test_without_mmdet_nothing_is_checked_nor_imported(tmp_path: Path) -> None:
    site = make_site(tmp_path / 'site', {'mmengine': '0.1'}, ())
    code = """
        import mmdet_iouquery
        from mmdet_iouquery import compat
        loaded = [name for name in sys.modules if name.startswith('mmdet_iouquery.')]
        print(compat.mmdet_installed(), sorted(loaded))
    """
    result = run_bare(code, site)
    assert result.stdout.split(maxsplit=1)[0] == 'False', result.stderr
    names = [f'mmdet_iouquery.compat{name}' for name in ('', '.environment', '.native', '.operators', '.runner')]
    assert result.stdout.split(maxsplit=1)[1].strip() == str([*names, 'mmdet_iouquery.version'])


def test_source_tree_without_metadata_is_found_by_its_version_file(tmp_path: Path) -> None:
    versions = {'mmengine': '0.10.7', 'mmcv-lite': '2.1.0'}
    site = make_site(tmp_path / 'site', versions, (*compat.MODULES, 'torch'))
    (site / 'mmdet' / 'version.py').write_text("# comment\n__version__ = '2.25.0'\n")
    result = run_bare('import mmdet_iouquery', site)
    assert 'mmdet 2.25.0 is outside the supported range' in result.stderr


def test_missing_torch_is_named(tmp_path: Path) -> None:
    result = run_bare('import mmdet_iouquery', make_site(tmp_path / 'site', OPENMMLAB))
    assert result.returncode == 1
    assert 'problem: torch is not installed' in result.stderr


def test_a_torch_that_is_too_old_is_named_before_it_is_imported(tmp_path: Path) -> None:
    site = make_site(tmp_path / 'site', {**OPENMMLAB, 'torch': '2.5.1+cpu'}, (*compat.MODULES, 'torch'))
    result = run_bare('import mmdet_iouquery', site)
    assert result.returncode == 1 and 'problem: torch 2.5.1+cpu is older than 2.6' in result.stderr
    for version in ('2.6.0', '2.10.1+cu130', 'unknown', None):
        assert compat.torch_findings(version, missing=False) == []


# --- mmcv without compiled operators ----------------------------------------------------------------------------------


def make_mmcv(folder: Path, operators: str | None) -> Path:
    package = folder / 'mmcv'
    package.mkdir(parents=True)
    (package / '__init__.py').write_text('')
    if operators is not None:
        (package / '_ext.py').write_text(operators)
    return folder


def test_stand_in_is_a_module_whose_operators_explain_themselves(tmp_path: Path) -> None:
    code = """
        import importlib, importlib.util, inspect, pickle
        from mmdet_iouquery import compat
        assert compat.ops_state() == 'missing'
        compat.install_ops_stand_in()
        assert compat.ops_state() == 'stand-in'
        import mmcv
        extension = importlib.import_module('mmcv._ext')
        assert mmcv._ext is extension is sys.modules['mmcv._ext']
        assert importlib.util.find_spec('mmcv._ext').name == 'mmcv._ext'
        for name in ('nms', 'roi_align_forward', 'ms_deform_attn_forward'):
            assert hasattr(extension, name)
            assert getattr(extension, name).__name__ == name
        for name in ('__path__', '__file__', '__wrapped__', '_private'):
            assert not hasattr(extension, name), name
        assert pickle.loads(pickle.dumps(extension.nms)) is extension.nms
        assert inspect.isfunction(extension.nms) and inspect.getmodule(extension.nms) is extension
        assert extension.get_compiler_version() == extension.get_compiling_cuda_version() == 'n/a'
        compat.install_ops_stand_in()
        assert sys.modules['mmcv._ext'] is extension
        try:
            extension.nms(1, iou_threshold=0.5)
        except RuntimeError as error:
            print(error)
    """
    result = run_bare(code, make_mmcv(tmp_path, None))
    assert result.returncode == 0, result.stderr
    assert "the compiled mmcv operator 'nms' was called" in result.stdout
    assert 'mim install mmcv==2.1.0' in result.stdout


def test_install_line_for_operators_follows_the_family(tmp_path: Path) -> None:
    site = make_site(tmp_path / 'site', ONEDL, ('mmcv',))
    code = """
        from mmdet_iouquery import compat
        compat.install_ops_stand_in()
        sys.modules['mmcv._ext'].nms()
    """
    result = run_bare('sys.orig_argv = ["-m", "mmdet_iouquery.doctor"]\n' + textwrap.dedent(code), site)
    assert 'RuntimeError' in result.stderr
    assert '--no-build-isolation' in result.stderr and 'onedl-mmcv==2.3.6' in result.stderr


def test_compiled_operators_are_left_untouched(tmp_path: Path) -> None:
    code = """
        from mmdet_iouquery import compat
        assert compat.ops_state() == 'compiled'
        compat.install_ops_stand_in()
        import mmcv._ext
        assert mmcv._ext.nms == 42 and not hasattr(mmcv._ext, 'roi_align')
        assert compat.ops_state() == 'compiled'
        print('ok')
    """
    folder = make_mmcv(tmp_path, 'nms = 42')
    (folder / 'torch.py').write_text('')
    result = run_bare(code, folder)
    assert result.stdout == 'ok\n', result.stderr


def test_operators_for_another_torch_give_one_clear_error(tmp_path: Path) -> None:
    folder = make_mmcv(tmp_path, "raise ImportError('undefined symbol: _ZN3c10')")
    (folder / 'torch.py').write_text('')
    result = run_bare('from mmdet_iouquery import compat; compat.install_ops_stand_in()', folder)
    assert result.returncode == 1
    assert 'do not load: undefined symbol: _ZN3c10' in result.stderr
    assert 'built for another version of torch' in result.stderr


def test_without_mmcv_there_is_nothing_to_stand_in_for() -> None:
    code = """
        from mmdet_iouquery import compat
        compat.install_ops_stand_in()
        print(compat.ops_state(), 'mmcv._ext' in sys.modules)
    """
    assert run_bare(code).stdout == 'no mmcv False\n'


# --- checkpoints ------------------------------------------------------------------------------------------------------


def saved(value: object) -> io.BytesIO:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    buffer.seek(0)
    return buffer


def with_other_numpy_names(checkpoint: io.BytesIO) -> io.BytesIO:
    """The same checkpoint as the other major version of numpy would have written it."""
    old, new = b'numpy._core.multiarray', b'numpy.core.multiarray'
    result = io.BytesIO()
    with zipfile.ZipFile(checkpoint) as source, zipfile.ZipFile(result, 'w', zipfile.ZIP_STORED) as target:
        for name in source.namelist():
            content = source.read(name)
            if name.endswith('data.pkl'):
                swapped = content.replace(old, new) if old in content else content.replace(new, old)
                assert swapped != content
                content = swapped
            target.writestr(name, content)
    result.seek(0)
    return result


@pytest.mark.parametrize('rewrite', [lambda checkpoint: checkpoint, with_other_numpy_names], ids=['as is', 'renamed'])
def test_history_and_numpy_values_load_under_the_strict_default(rewrite: object) -> None:
    history = HistoryBuffer([3.0, 1.0, 2.0], [1, 1, 1])
    value = dict(history=history, best=np.float64(0.25), flag=np.bool_(True), labels=np.arange(3), name=np.array(['a']))
    loaded = torch.load(rewrite(saved(value)), weights_only=True)  # type: ignore[operator]
    assert isinstance(loaded['history'], HistoryBuffer)
    assert (loaded['history'].mean(), loaded['history'].min(), loaded['history'].current()) == (2.0, 1.0, 2.0)
    assert loaded['history'].statistics('max') == 3.0
    assert (loaded['best'], loaded['flag'], loaded['labels'].tolist()) == (0.25, True, [0, 1, 2])
    assert loaded['name'].tolist() == ['a']


class Call:
    """Unpickles by calling a function, as a malicious file would."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self.call


@pytest.mark.parametrize(
    'value',
    [
        Call(os.system, 'exit 1'),
        Call(eval, '1 + 1'),
        Call(getattr, HistoryBuffer, '__init__'),
        Call(getattr, HistoryBuffer, '_set_default_statistics'),
        Call(getattr, np.ndarray, 'tofile'),
        Call(getattr, np.dtype, 'mro'),
    ],
    ids=['system', 'eval', 'constructor', 'private method', 'array method', 'type method'],
)
def test_everything_else_is_still_refused(value: Call) -> None:
    with pytest.raises(pickle.UnpicklingError):
        torch.load(saved(value), weights_only=True)


RESUME = """
import sys
import mmdet_iouquery
import mmcv.ops, mmdet.models
import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner


class Line(BaseModel):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def forward(self, x, y, mode='loss'):
        return dict(loss=(self.layer(x) - y).square().mean())


def run(epochs, resume):
    data = torch.utils.data.TensorDataset(torch.arange(16.0).reshape(8, 2) / 16, torch.ones(8, 1))
    loader = dict(dataset=data, batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True),
                  collate_fn=dict(type='default_collate'))
    runner = Runner(
        Line(), sys.argv[1], train_dataloader=loader, train_cfg=dict(by_epoch=True, max_epochs=epochs), resume=resume,
        optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=0.01)),
        param_scheduler=[dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=3)],
        custom_hooks=[dict(type='EMAHook')], default_hooks=dict(logger=dict(type='LoggerHook', interval=1)),
        experiment_name=f'run{epochs}', log_level='ERROR', randomness=dict(seed=0))
    start = []
    runner.register_hook(type('Start', (__import__('mmengine').hooks.Hook,), dict(
        before_train=lambda self, runner: start.append(runner.iter)))(), 'LOWEST')
    runner.train()
    return start[0], runner.iter, len(runner.message_hub.get_scalar('train/loss').data[0])


print(run(2, False), run(3, True), mmdet_iouquery.compat.ops_state())
"""


def test_operators_import_and_a_training_of_mmengine_resumes_with_its_history(tmp_path: Path) -> None:
    """In a process that has imported nothing else."""
    script = tmp_path / 'resume.py'
    script.write_text(RESUME)
    command = [sys.executable, str(script), str(tmp_path / 'work')]
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    # mmdet may print something of its own first
    assert re.search(r'\(0, 8, 8\) \(8, 12, 12\) (compiled|stand-in)$', result.stdout.strip()), result.stderr[-2000:]


def test_mmdets_notes_on_import_are_kept_back_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    with compat.without_import_notes():
        print('before')
        print('Could not import OneDL. Skipping OneDL datasets.')
        print('Could not import OneDL')  # onedl-mmdetection 3.4.0
        print('after', end='')
        assert capsys.readouterr().out == ''
    assert capsys.readouterr().out == 'before\nafter'

    def fail() -> None:
        print('said before it failed')
        raise ImportError

    with pytest.raises(ImportError), compat.without_import_notes():
        fail()
    assert capsys.readouterr().out == 'said before it failed\n'


def test_an_import_says_nothing() -> None:
    done = subprocess.run([sys.executable, '-c', 'import mmdet_iouquery'], capture_output=True, text=True, check=True)
    assert 'OneDL' not in done.stdout + done.stderr and 'metrics will not be computed' not in done.stderr


class Owner:
    """One method of it fails, in whatever it is asked to build."""

    def forward(self, number: int, registry: Registry, *others: int, cfg: dict) -> None:
        number += 1
        registry.build(cfg)


def refusing(size: int) -> None:
    raise TypeError(size)


@pytest.mark.parametrize(('name', 'kind'), [('Refusing', refusing), ('Missing', None)])
def test_calls_tell_what_mmengine_was_building(name: str, kind: object) -> None:
    registry, owner, cfg = Registry('own'), Owner(), {'type': name, 'size': 3}
    registry.register_module('Refusing', module=refusing)
    with pytest.raises((TypeError, KeyError)) as caught:
        owner.forward(1, registry, 7, cfg=cfg)
    of_test, of_owner, *of_mmengine = compat.calls(caught.value)
    assert (of_test.function, of_test.owner, of_test.building) == (
        'test_calls_tell_what_mmengine_was_building',
        None,
        None,
    )
    assert of_owner.module == __name__ and of_owner.owner is owner and of_owner.building is None
    assert of_owner.arguments == {'number': 2, 'registry': registry}
    (build,) = [call for call in of_mmengine if call.building]
    assert build.function == 'build_from_cfg' and build.building == compat.Building(cfg, name, registry, kind)
    assert (of_mmengine[-1].arguments == {'size': 3}) is (kind is refusing)
    assert compat.calls(ValueError()) == []
