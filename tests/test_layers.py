"""Nothing imports upwards."""

from __future__ import annotations

import re
import subprocess
import sys

from structure import Import, imports, modules

LAYERS = (
    ('choices', 'errors', 'file_io', 'registry', 'version'),
    ('compat',),
    ('core',),
    ('structures', 'argument_checks', 'config_files', 'config_options'),
    ('command_line',),
    ('models',),
    ('checkpoints', 'datasets', 'evaluation', 'cpu'),
    ('deploy', 'testing'),
    ('engine',),
    ('apps',),
    ('',),
    ('__main__', 'doctor', 'main', 'run'),
)
"""Folders and files of the package, the lowest first: each imports of itself and of layers below its own."""

HEIGHT = {unit: height for height, units in enumerate(LAYERS) for unit in units}


def test_every_file_has_a_layer() -> None:
    assert {module.unit for module in modules().values()} == set(HEIGHT)


def test_nothing_imports_upwards() -> None:
    known = modules()
    assert Import('models.pipeline', 24) in [
        one._replace(line=24) for one in imports(known['models.hosts.query_parts'], known)
    ]
    for module in known.values():
        for imported in imports(module, known):
            unit = imported.module.split('.')[0]
            allowed = unit == module.unit or HEIGHT[unit] < HEIGHT[module.unit]
            assert allowed, f'{module.path}:{imported.line} imports {imported.module}, which stands above'


def test_only_compat_looks_inside_torch_and_the_c_library() -> None:
    inside = re.compile(r'torch\.ops\.|torch\._(?!_version)|(?:from|import) torch[\w.]*\._|native_batch_norm|ctypes')
    actual = {module.unit for module in modules().values() if inside.search(module.path.read_text(encoding='utf-8'))}
    assert actual == {'compat'}


def test_an_import_of_the_package_loads_no_app_and_no_runtime() -> None:
    code = 'import sys, mmdet_iouquery; print(*sys.modules)'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert 'mmdet_iouquery.engine.hooks' in loaded
    assert 'mmdet_iouquery.deploy.export' in loaded
    assert not [name for name in loaded if name.startswith('mmdet_iouquery.apps')]
    assert not {'onnx', 'onnxruntime', 'onnxslim', 'onnxscript', 'openvino'} & {*loaded}
