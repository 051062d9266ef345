"""The wheel and the metadata: what it carries, what it asks for, and that an installed one finds its configs."""

from __future__ import annotations

import email
import gc
import importlib.util
import json
import math
import os
import re
import shutil
import subprocess
import sys
import zipfile
from email.message import Message
from pathlib import Path

import pytest

import mmdet_iouquery
from mmdet_iouquery.compat import without_garbage_collection
from mmdet_iouquery.config_files import config_names, config_path, config_root
from mmdet_iouquery.errors import InputError
from mmdet_iouquery.version import FAMILIES, REPOSITORY, __version__

ROOT = Path(__file__).resolve().parents[1]


def tree_of(folder: Path) -> set[str]:
    """Everything under a folder, without caches."""
    ignored = {'__pycache__', '.git', 'build', '.mypy_cache', '.ruff_cache', '.pytest_cache'}
    paths = (path.relative_to(folder) for path in folder.rglob('*'))
    return {path.as_posix() for path in paths if not ignored & set(path.parts) and '.egg-info' not in str(path)}


@pytest.fixture(scope='module')
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the build needs, so that nothing is built in the checkout."""

    folder = tmp_path_factory.mktemp('source') / 'a copy'
    folder.mkdir()
    for name in ('mmdet_iouquery', 'iouquery_runtime', 'configs', 'tools'):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns('__pycache__'))
    for name in ('setup.py', 'iouquery.py', 'pyproject.toml', 'MANIFEST.in', 'LICENSE', 'README.md', 'model-index.yml'):
        if (ROOT / name).is_file():
            shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope='module')
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp('dist')
    command = [sys.executable, '-m', 'pip', 'wheel', '-q', '--no-deps', '-w', str(output), str(source)]
    if importlib.util.find_spec('setuptools') is not None:
        command.append('--no-build-isolation')
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    [path] = output.glob('*.whl')
    return path


@pytest.fixture(scope='module')
def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith('.dist-info/METADATA')]
        return email.message_from_string(archive.read(name).decode())


def requirements(metadata: Message, extra: str | None) -> list[str]:
    """The requirements of an extra, or those that always hold, without their markers and blanks."""
    collected = []
    for line in metadata.get_all('Requires-Dist') or []:
        requirement, _, marker = line.partition(';')
        match = re.search(r'extra\s*==\s*["\']([^"\']+)', marker)
        if (match.group(1) if match else None) == extra:
            collected.append(requirement.strip())
    return collected


def test_wheel_is_pure_and_carries_the_version(wheel: Path, metadata: Message) -> None:
    assert wheel.name == f'mmdet_iouquery-{__version__}-py3-none-any.whl'
    assert metadata['Requires-Python'] == '>=3.9'
    assert (metadata['License-Expression'] or metadata['License']) == 'Apache-2.0'


def test_links_of_the_readme_work_on_the_package_index(metadata: Message) -> None:
    """All are absolute there; what is no link is as it was."""
    readme, shown = (ROOT / 'README.md').read_text(encoding='utf-8'), metadata.get_payload()
    links = re.findall(r'\]\(([^)]+)\)', shown)
    assert links and all(re.match('https?://|#', link) for link in links)
    to_files = rf'{REPOSITORY}/(raw|blob|tree)/main/([\w./-]+)'
    ours = [re.match(to_files, link) for link in links if link.startswith(REPOSITORY)]
    assert ours and all(match and (ROOT / match[2]).exists() for match in ours)
    assert all((match[1] == 'raw') == match[2].endswith(('.jpg', '.png')) for match in ours if match)
    assert re.sub(to_files, r'\2', shown).strip() == re.sub(to_files, r'\2', readme).strip()
    assert f'Homepage, {REPOSITORY}' in metadata.get_all('Project-URL')


def test_wheel_carries_configs_tools_and_every_module(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    for folder in ('configs', 'tools'):
        files = {name for name in tree_of(ROOT / folder) if (ROOT / folder / name).is_file()}
        assert files
        assert {f'mmdet_iouquery/.mim/{folder}/{name}' for name in files} <= names
    assert 'mmdet_iouquery/.mim/model-index.yml' in names
    for package in ('mmdet_iouquery', 'iouquery_runtime'):
        modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / package).rglob('*.py')}
        assert {f'{package}/__init__.py', *modules, f'{package}/py.typed'} <= names
    assert not [name for name in names if name.endswith('.pyc') or name.startswith('tests/')]


def test_an_installed_wheel_has_the_command(wheel: Path, tmp_path: Path) -> None:
    """In an empty folder."""
    site, empty = tmp_path / 'site', tmp_path / 'empty'
    empty.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
        (name,) = (name for name in archive.namelist() if name.endswith('.dist-info/entry_points.txt'))
        assert '[console_scripts]\niouquery = iouquery:main' in archive.read(name).decode()
    environment = {**os.environ, 'PYTHONPATH': str(site)}
    for words in (['-m', 'iouquery', 'configs', '--json'], ['-m', 'mmdet_iouquery', 'configs', '--json']):
        done = subprocess.run(
            [sys.executable, *words],
            cwd=empty,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        entries = json.loads(done.stdout)
        assert sorted(entry['path'] for entry in entries) == config_names()
        assert sum(entry['ap'] is not None for entry in entries) > 30


def test_a_second_build_drops_configs_that_are_gone(source: Path, tmp_path: Path) -> None:
    extra = source / 'configs' / 'gone.py'
    extra.write_text('')
    build = [sys.executable, 'setup.py', '-q', 'build_py', '--build-lib', str(tmp_path)]
    subprocess.run(build, cwd=source, check=True, capture_output=True, timeout=120)
    shipped = tmp_path / 'mmdet_iouquery' / '.mim' / 'configs'
    assert (shipped / 'gone.py').is_file()
    extra.unlink()
    subprocess.run(build, cwd=source, check=True, capture_output=True, timeout=120)
    assert shipped.is_dir() and not (shipped / 'gone.py').exists()


def test_building_leaves_no_copies_in_the_source_tree(source: Path, wheel: Path) -> None:
    assert not (source / 'mmdet_iouquery' / '.mim').exists()
    assert not [name for name in tree_of(source) if (source / name).is_symlink()]


def test_installing_forces_neither_torch_nor_a_family(metadata: Message) -> None:
    names = {re.split(r'[<>=!~ \[]', line)[0] for line in requirements(metadata, None)}
    assert names == {'numpy', 'packaging', 'Pillow', 'PyYAML', 'pycocotools', 'scipy', 'tqdm'}


@pytest.mark.parametrize('family', sorted(FAMILIES))
def test_extra_of_a_family_is_the_version_table(family: str, metadata: Message) -> None:
    def normal(requirement: str) -> tuple[str, frozenset[str]]:
        name, specifier = re.fullmatch(r'([\w-]+)(.*)', requirement).groups()  # type: ignore[union-attr]
        return name, frozenset(bound.strip() for bound in specifier.split(','))

    actual = {normal(line) for line in requirements(metadata, family)}
    assert {normal(package.requirement) for package in FAMILIES[family]} <= actual
    assert not [name for name, _ in actual if name.startswith('torch')]


def test_installed_wheel_finds_its_configs(wheel: Path, tmp_path: Path) -> None:
    site, elsewhere = tmp_path / 'site', tmp_path / 'elsewhere'
    elsewhere.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    code = (
        f'import sys; sys.path.insert(0, {str(site)!r})\n'
        'from mmdet_iouquery import config_path\n'
        'from mmdet_iouquery.config_files import config_names, config_root\n'
        'print(config_root())\n'
        'print(*map(config_path, config_names()), sep="\\n")\n'
    )
    result = subprocess.run(
        [sys.executable, '-I', '-S', '-c', code], cwd=elsewhere, capture_output=True, text=True, timeout=120
    )
    root, *paths = result.stdout.splitlines()
    assert Path(root) == site.resolve() / 'mmdet_iouquery' / '.mim' / 'configs', result.stderr
    assert paths == [str(Path(root) / name) for name in config_names()]
    assert paths and all(Path(path).is_file() for path in paths)


def test_checkout_reads_the_configs_beside_the_package() -> None:
    assert config_root() == ROOT / 'configs'
    for name in config_names():
        assert mmdet_iouquery.config_path(name) == str(ROOT / 'configs' / name)
        assert not name.startswith('_base_/')


def test_a_neighbour_called_configs_is_not_taken_for_a_checkout(tmp_path: Path) -> None:
    (tmp_path / 'configs').mkdir()
    package = tmp_path / 'mmdet_iouquery'
    assert config_root(package) == package / '.mim' / 'configs'


def make_configs(folder: Path) -> Path:
    for name in ('rtdetr/rtdetr_r18vd.py', 'rtdetr/rtdetr_r50vd.py', 'dino/dino_r50.py', '_base_/run.py'):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text('')
    return folder


def test_unknown_config_lists_what_comes_close(tmp_path: Path) -> None:
    root = make_configs(tmp_path)
    assert config_path('_base_/run.py', root) == str(root.resolve() / '_base_' / 'run.py')
    assert config_names(root) == ['dino/dino_r50.py', 'rtdetr/rtdetr_r18vd.py', 'rtdetr/rtdetr_r50vd.py']
    with pytest.raises(InputError, match=r"'rtdetr_r18.py'.*close to it: rtdetr_r18vd, rtdetr_r50vd"):
        config_path('rtdetr_r18.py', root)
    with pytest.raises(InputError, match=r'`iouquery configs` lists them'):
        config_path('zzz', root)


def test_config_names_do_not_lead_out_of_the_folder(tmp_path: Path) -> None:
    root = make_configs(tmp_path / 'configs')
    (tmp_path / 'secret.py').write_text('')
    for name in (str(tmp_path / 'secret.py'), '', 'rtdetr'):
        with pytest.raises(InputError, match='no shipped config'):
            config_path(name, root)
    with pytest.raises(InputError, match=r'there is no file or folder \.\./secret\.py; correct the path'):
        config_path('../secret.py', root)


@pytest.mark.parametrize('collects', [True, False])
def test_importing_leaves_garbage_collection_as_it_was(collects: bool) -> None:
    """It rests meanwhile; an import that fails changes nothing either."""
    before = gc.isenabled()
    try:
        (gc.enable if collects else gc.disable)()
        with pytest.raises(ImportError), without_garbage_collection():  # noqa: PT012  the block is what fails
            assert not gc.isenabled()
            raise ImportError
        assert gc.isenabled() is collects
    finally:
        (gc.enable if before else gc.disable)()


def test_empty_installation_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match='the installation is incomplete'):
        config_path('rtdetr/rtdetr_r18vd.py', tmp_path)


RUN_EVERY_CONFIG = """
import functools, json
import mmdet_iouquery
from mmdet_iouquery.config_files import config_names, config_path
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.utils import register_all_modules
from mmengine.config import Config, utils
from mmengine.optim import build_optim_wrapper
from mmengine.structures import InstanceData

register_all_modules(init_default_scope=True)
utils.load = functools.cache(utils.load)  # of mmdet's index of configs, a hundred files
done = {}
for name in config_names():
    if name.startswith('_base_'):
        continue
    cfg = Config.fromfile(config_path(name))
    cfg.model.backbone.init_cfg = None
    if not name.startswith(('rtdetr/rtdetr_r18vd_8xb2', 'quickstart/')):  # test_configs.py trains all
        with torch.device('meta'):
            MODELS.build(cfg.model)
        done[name] = None
        continue
    model = MODELS.build(cfg.model)
    sample = DetDataSample(metainfo=dict(img_shape=(64, 96), batch_input_shape=(64, 96), scale_factor=(1.0, 1.0)))
    sample.gt_instances = InstanceData(bboxes=torch.tensor([[8.0, 8.0, 40.0, 60.0]]), labels=torch.tensor([0]))
    images = torch.rand(1, 3, 64, 96)
    model.train()
    for module in model.modules():  # one image of 64 x 96 leaves batch norm too little to go by
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    loss = sum(model.loss(images, [sample]).values())
    build_optim_wrapper(model, cfg.optim_wrapper).update_params(loss)
    with torch.no_grad():
        (result,) = model.eval().predict(images, [sample])
    done[name] = [loss.item(), len(result.pred_instances)]
print(json.dumps({'from': mmdet_iouquery.__file__, 'done': done}))
"""


def test_every_config_builds_from_the_wheel_in_an_empty_folder(wheel: Path, tmp_path: Path) -> None:
    """And three of them train."""
    site, empty = tmp_path / 'site', tmp_path / 'empty'
    empty.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    run = subprocess.run(
        [sys.executable, '-c', RUN_EVERY_CONFIG],
        cwd=empty,
        env={**os.environ, 'PYTHONPATH': str(site)},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    report = json.loads(run.stdout.splitlines()[-1])
    assert Path(report['from']).is_relative_to(site)
    assert set(report['done']) == {name for name in config_names() if not name.startswith('_base_')}
    trained = {name: result for name, result in report['done'].items() if result}
    assert len(trained) == 3
    for name, (loss, detections) in trained.items():
        assert math.isfinite(loss) and loss > 0 and detections > 0, name
