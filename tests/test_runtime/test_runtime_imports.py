"""The runtime stands alone: no torch, no mmdet, and of what runs a graph only what is needed."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import numpy
import onnxruntime
import PIL
import pytest
from exported_files import write_model
from image_files import random_image

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / 'iouquery_runtime'

BLOCKED = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in sys.argv[1].split(','):
            raise ModuleNotFoundError(f'No module named {name!r}', name=name)

sys.meta_path.insert(0, Absent())
import iouquery_runtime
iouquery_runtime.Detector
print(*sorted({name.split('.')[0] for name in sys.modules} - set(sys.stdlib_module_names)))
for model in sys.argv[3:]:
    try:
        print(len(iouquery_runtime.Detector(model)(sys.argv[2])))
    except iouquery_runtime.InputError as error:
        print(error)
"""


def run_blocked(blocked: str, *arguments: object) -> list[str]:
    command = [sys.executable, '-c', BLOCKED, blocked, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, timeout=120)
    return done.stdout.splitlines()


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('models')
    write_model(folder / 'model.onnx')
    random_image().save(folder / 'image.png')
    for name in ('model.xml', 'model.bin'):
        (folder / name).touch()
    return folder


def test_it_runs_where_nothing_else_can_be_imported(folder: Path) -> None:
    blocked = 'torch,torchvision,mmcv,mmdet,mmengine,mmdet_iouquery,cv2,scipy,onnx,openvino,supervision'
    modules, detections = run_blocked(blocked, folder / 'image.png', folder / 'model.onnx')
    assert detections == '10'
    loaded = set(modules.split())
    assert {'iouquery_runtime', 'numpy', 'PIL'} <= loaded
    assert not loaded & {*blocked.split(','), 'onnxruntime'}, 'an import of the package'


def test_what_is_missing_is_told_with_the_line_that_installs_it(folder: Path) -> None:
    _, onnx, xml = run_blocked(
        'onnxruntime,openvino', folder / 'image.png', folder / 'model.onnx', folder / 'model.xml'
    )
    assert onnx == (
        f'running {folder}/model.onnx needs onnxruntime, which is not installed: pip install onnxruntime (or '
        'onnxruntime-gpu)'
    )
    assert xml == f'running {folder}/model.xml needs openvino, which is not installed: pip install openvino'


def test_its_files_import_nothing_but_numpy_and_pillow() -> None:
    allowed = {*sys.stdlib_module_names, 'numpy', 'PIL'}
    paths = sorted(PACKAGE.glob('*.py'))
    assert len(paths) > 8
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            if isinstance(node, ast.Import):
                assert {alias.name.split('.')[0] for alias in node.names} <= allowed, path
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 1 or (node.level == 0 and str(node.module).split('.')[0] in allowed), path


def test_numpy_pillow_and_onnxruntime_are_all_that_is_installed(folder: Path, tmp_path: Path) -> None:
    """As on a device: a folder with these three alone in place of all installed packages."""
    site = tmp_path / 'site'
    site.mkdir()
    for package in (numpy, PIL, onnxruntime):
        installed = Path(str(package.__file__)).parent
        libraries = installed.parent.glob(f'{"pillow" if package is PIL else package.__name__}.libs')
        for path in (installed, *libraries):
            (site / path.name).symlink_to(path)
    (site / 'iouquery_runtime').symlink_to(PACKAGE)
    code = f'import sys; sys.path.append({str(site)!r}); sys.argv[0] = "-m"\n' + (
        'from iouquery_runtime.command import main\nsys.exit(main(sys.argv[1:]))'
    )
    options = [folder / 'model.onnx', folder / 'image.png', '--out', tmp_path / 'drawn', '--score-thr', '0']
    command = [sys.executable, '-I', '-S', '-c', code, *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / 'drawn' / 'image.png').is_file()
