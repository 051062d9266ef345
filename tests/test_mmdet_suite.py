"""The runner of mmdet's own tests: what it leaves out, how an adapter takes a name and gives it back, the layout."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from mmdet.registry import MODELS
from mmdet_suite import selection, sources
from mmengine.registry import Registry

from mmdet_iouquery.compat import operators
from mmdet_iouquery.errors import InputError

INSTALLED = sources.Installed('onedl', 'onedl-mmdetection', '9.8.7', Path('nowhere'))


class Parent:
    pass


class Adapter(Parent):
    def __init__(self, size: int = 1) -> None:
        self.size = size


class Further(Adapter):
    pass


def tree_with_tests(folder: Path, files: dict[str, str] | None = None) -> Path:
    """A source tree with every folder of tests that is run, and the given files in them."""
    for name in selection.FOLDERS:
        (folder / selection.MODELS_FOLDER / name).mkdir(parents=True)
    for name, text in (files or {}).items():
        (folder / selection.MODELS_FOLDER / name).write_text(text)
    return folder


# --- what is left out -------------------------------------------------------------------------------------------------


def stand_in_error() -> RuntimeError:
    with pytest.raises(RuntimeError) as caught:
        operators._missing_operator('nms')()
    return caught.value


def test_only_the_stand_ins_error_is_an_excuse_and_never_for_what_needs_no_operator() -> None:
    error = stand_in_error()
    assert selection.missing_operator(error, 'test_ddq_detr.py') == 'nms'
    assert selection.missing_operator(error, 'test_dino.py') is None
    assert selection.missing_operator(RuntimeError('shapes do not match'), 'test_ddq_detr.py') is None
    assert selection.missing_operator(AssertionError(str(error)), 'test_ddq_detr.py') is None


def test_five_of_the_six_detectors_have_to_run_without_operators() -> None:
    assert len(selection.ADAPTED) == 6
    assert set(selection.ADAPTED) - selection.NEEDS_NO_OPERATOR == {'test_ddq_detr.py'}


def test_a_file_is_left_out_by_its_place_among_the_tests() -> None:
    folder = Path('anywhere') / selection.MODELS_FOLDER
    assert selection.left_out(folder / 'test_detectors' / 'test_glip.py') == 'fetches a tokenizer from the network'
    assert selection.left_out(folder / 'test_layers' / 'test_glip.py') is None
    assert all(selection.left_out(folder / 'test_detectors' / name) is None for name in selection.ADAPTED)


def test_a_renamed_test_is_noticed(tmp_path: Path) -> None:
    tree_with_tests(tmp_path, {f'test_detectors/{name}': '' for name in selection.ADAPTED})
    assert len(selection.targets(tmp_path, adapters=False)) == len(selection.FOLDERS)
    assert f'{selection.MODELS_FOLDER}/test_detectors/test_dino.py' in selection.targets(tmp_path, adapters=True)
    (tmp_path / selection.MODELS_FOLDER / 'test_detectors' / 'test_dino.py').rename(tmp_path / 'test_dino_detr.py')
    with pytest.raises(FileNotFoundError, match=r'test_dino.py'):
        selection.targets(tmp_path, adapters=True)


# --- an adapter in its parent's place ---------------------------------------------------------------------------------


@pytest.fixture
def registry() -> Registry:
    registry = Registry('model')
    for name, cls in (('Parent', Parent), ('IoUQueryParent', Adapter), ('IoUQueryFurther', Parent)):
        registry.register_module(name=name, module=cls)
    registry.register_module(name='Further', module=Further)
    return registry


def test_the_adapter_is_built_counted_and_taken_away_again(registry: Registry) -> None:
    init = Adapter.__init__
    with selection.registered_over(registry, {'Parent': Adapter}) as made:
        assert registry.build(dict(type='Parent', size=3)).size == 3
        registry.build(dict(type='Parent'))
        assert made['Parent'] == 2
        Further()
        Parent()
        assert made['Parent'] == 2
    assert registry.get('Parent') is Parent
    assert Adapter.__init__ is init
    Adapter()
    assert made['Parent'] == 2


def test_it_is_taken_away_after_an_error_too(registry: Registry) -> None:
    with pytest.raises(KeyError), selection.registered_over(registry, {'Parent': Further}):
        raise KeyError
    assert registry.get('Parent') is Parent
    assert '__init__' not in vars(Further)


def test_an_adapter_has_to_exist_and_to_be_a_subclass(registry: Registry) -> None:
    assert selection.adapter_of(registry, 'Parent') is Adapter
    with pytest.raises(LookupError, match='IoUQueryFurther'):
        selection.adapter_of(registry, 'Further')
    with pytest.raises(LookupError, match='IoUQueryAdapter'):
        selection.adapter_of(registry, 'Adapter')


@pytest.mark.parametrize('parent', selection.ADAPTED.values())
def test_every_detector_of_the_table_has_its_adapter_and_keeps_its_name(parent: str) -> None:
    assert selection.adapter_of(MODELS, parent).__module__.startswith('mmdet_iouquery.')
    assert MODELS.get(parent).__module__.startswith('mmdet.')


# --- the source of the tests and where they run -----------------------------------------------------------------------


def test_a_source_tree_without_tests_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match='test_models'):
        sources.find_tests(INSTALLED, tmp_path, tmp_path)
    tree = tree_with_tests(tmp_path / 'tree')
    assert sources.find_tests(INSTALLED, tmp_path, tree) == tree


def test_a_source_package_without_tests_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bare, full = tmp_path / 'bare', tree_with_tests(tmp_path / 'full')
    monkeypatch.setattr(sources, 'fetch_source_package', lambda installed, folder: bare)
    monkeypatch.setattr(sources, 'fetch_repository', lambda installed, folder: full)
    assert sources.find_tests(INSTALLED, tmp_path) == full
    monkeypatch.setattr(sources, 'fetch_repository', lambda installed, folder: None)
    with pytest.raises(InputError, match=r'v9.8.7'):
        sources.find_tests(INSTALLED, tmp_path)


def test_a_source_package_is_unpacked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = tree_with_tests(tmp_path / 'onedl_mmdetection-9.8.7', {'test_layers/test_x.py': ''})
    calls: list[list[str]] = []

    def pip(command: list[str]) -> subprocess.CompletedProcess[str]:
        calls.append(command)
        folder = Path(command[command.index('--dest') + 1])
        folder.mkdir(parents=True)
        with tarfile.open(folder / 'onedl_mmdetection-9.8.7.tar.gz', 'w:gz') as archive:
            archive.add(tree, arcname=tree.name)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(sources.subprocess, 'run', pip)
    for _ in range(2):
        unpacked = sources.find_tests(INSTALLED, tmp_path / 'cache')
        assert (unpacked / selection.MODELS_FOLDER / 'test_layers' / 'test_x.py').is_file()
    assert [command[-1] for command in calls] == ['onedl-mmdetection==9.8.7']


@pytest.mark.skipif(shutil.which('git') is None, reason='there is no git')
def test_the_tag_of_the_installed_version_is_cloned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = tree_with_tests(tmp_path / 'upstream', {'test_layers/test_x.py': ''})
    identity = ['-c', 'user.name=A', '-c', 'user.email=a@example.com', '-c', 'commit.gpgsign=false']
    for arguments in (['init', '-q'], ['add', '.'], [*identity, 'commit', '-q', '-m', 'A release'], ['tag', 'v9.8.7']):
        subprocess.run(['git', '-C', str(tree), *arguments], check=True)
    monkeypatch.setitem(sources.REPOSITORIES, 'onedl', tree.as_uri())
    assert sources.fetch_repository(INSTALLED._replace(version='9.9.9'), tmp_path / 'other') is None
    clone = sources.fetch_repository(INSTALLED, tmp_path / 'cache')
    assert clone is not None
    assert (clone / selection.MODELS_FOLDER / 'test_layers' / 'test_x.py').is_file()


def test_the_layout_links_what_is_installed_and_copies_the_tests(tmp_path: Path) -> None:
    package, tree = tmp_path / 'site' / 'mmdet', tree_with_tests(tmp_path / 'tree', {'test_layers/test_x.py': 'X'})
    (package / '.mim' / 'configs').mkdir(parents=True)
    (package / '.mim' / 'configs' / 'dino.py').write_text('Y')
    (tree / 'tests' / '__pycache__').mkdir()
    layout = tmp_path / 'layout'
    sources.lay_out(layout, package, tree)
    assert (layout / 'mmdet').resolve() == package
    assert (layout / 'configs' / 'dino.py').read_text() == 'Y'
    assert (layout / selection.MODELS_FOLDER / 'test_layers' / 'test_x.py').read_text() == 'X'
    assert not (layout / 'tests').is_symlink()
    assert not (layout / 'tests' / '__pycache__').exists()


def test_an_mmdet_without_configs_is_refused(tmp_path: Path) -> None:
    (tmp_path / 'mmdet').mkdir()
    with pytest.raises(InputError, match='no configs'):
        sources.lay_out(tmp_path / 'layout', tmp_path / 'mmdet', tree_with_tests(tmp_path / 'tree'))


# --- a run ------------------------------------------------------------------------------------------------------------

ASKS_FOR_NMS = """
from mmdet_iouquery.compat import operators


def test_nms():
    operators._missing_operator('nms')()
"""
PRETRAINED = """
from mmdet.models import ResNet


def test_pretrained():
    cfg = dict(type='Pretrained', checkpoint='torchvision://resnet50')
    ResNet(depth=18, base_channels=1, stem_channels=4, init_cfg=cfg).init_weights()
"""


@pytest.mark.slow
def test_a_run_fails_for_what_has_to_run_and_says_why_the_rest_did_not(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    files = {
        'test_detectors/test_dino.py': ASKS_FOR_NMS,
        'test_detectors/test_ddq_detr.py': ASKS_FOR_NMS,
        'test_detectors/test_glip.py': 'def test_glip():\n    assert False\n',
        'test_layers/test_pretrained.py': PRETRAINED,
    }
    layout = tmp_path / 'layout'
    sources.lay_out(layout, sources.installed_mmdet().package, tree_with_tests(tmp_path / 'tree', files))
    assert sources.run(layout, tmp_path / 'requirements') == 1
    output = capfd.readouterr().out
    assert 'FAILED tests/test_models/test_detectors/test_dino.py::test_nms' in output
    assert '1 failed, 1 passed, 1 skipped, 1 deselected' in output
    assert 'not run, 1: needs the compiled mmcv operator nms' in output
    assert 'not run, 1: fetches a tokenizer from the network' in output
