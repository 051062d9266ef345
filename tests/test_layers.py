"""Nothing imports upwards."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest
from inside import Look, looks_inside, shipped
from structure import ROOT, Import, imports, modules

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


A_QUERYS_WAY = (
    'models.query_selectors.iou_aware',
    'models.pipeline',
    'models.decoders.deformable',
    'models.losses.set_criterion',
    'models.losses.blocks',
)
"""From its selection to its losses, as CONTRIBUTING.md has it."""


def test_a_querys_way_is_short_and_described() -> None:
    known, text = modules(), (ROOT / 'CONTRIBUTING.md').read_text(encoding='utf-8')
    paths = [f'{name.removeprefix("models.").replace(".", "/")}.py' for name in A_QUERYS_WAY]
    places = [text.index(f'`{path}`') for path in paths]
    assert places == sorted(places)
    assert sum(known[name].num_lines for name in A_QUERYS_WAY) <= 900


def test_every_file_has_a_layer() -> None:
    assert {module.unit for module in modules().values()} == set(HEIGHT)


def test_nothing_imports_upwards() -> None:
    known = modules()
    assert Import('models.pipeline', 24) in [
        imported._replace(line=24) for imported in imports(known['models.hosts.query_parts'], known)
    ]
    for module in known.values():
        for imported in imports(module, known):
            unit = imported.module.split('.')[0]
            allowed = unit == module.unit or HEIGHT[unit] < HEIGHT[module.unit]
            assert allowed, f'{module.path}:{imported.line} imports {imported.module}, which stands above'


INSIDE = {
    # functions that other packages call, as they ask of whoever derives from their classes
    Look('mmdet_iouquery/engine/flat_cosine.py', '_ParamScheduler'),  # in __all__ of mmengine.optim, to derive from
    Look('mmdet_iouquery/engine/flat_cosine.py', '_get_value'),  # "all subclasses should overwrite" it
    Look('mmdet_iouquery/engine/logs/training_log.py', '_init_env'),  # abstract in BaseVisBackend
    Look('mmdet_iouquery/models/hosts/query_parts.py', '_forward'),  # abstract in BaseDetector
    Look('mmdet_iouquery/models/backbones/vit.py', '_load_from_state_dict'),  # its docstring names subclasses
    Look('mmdet_iouquery/models/decoders/distribution.py', '_load_from_state_dict'),
    Look('mmdet_iouquery/datasets/transforms.py', '_resize_img'),  # FixScaleResize of mmdet does so; else it is slower
    # there is no public way, and what they are of is not known to compat
    Look('docs/site_pages/commands.py', '_actions'),  # argparse
    Look('docs/site_pages/commands.py', '_SubParsersAction'),
    Look('iouquery_runtime/jobs/engine.py', '_temp_dir'),  # Ray; documented
    Look('iouquery_runtime/jobs/engine.py', '_max_num_blocks_in_streaming_gen_buffer'),  # Ray; slower without
    Look('mmdet_iouquery/apps/benchmark/reference.py', '__defaults__'),  # of a repository that is compared with
}


def test_only_compat_looks_inside_another_package() -> None:
    looks = looks_inside(shipped())
    of_compat = {look for look in looks if look.path.startswith('mmdet_iouquery/compat/')}
    assert {'_resume', 'f_locals', '_coco_api', 'torch.ops', 'ctypes'} <= {look.name for look in of_compat}
    assert looks - of_compat == INSIDE


@pytest.mark.parametrize(
    ('line', 'name'),
    [
        ('from torch.nn.modules.batchnorm import _BatchNorm', '_BatchNorm'),
        ('import torch._dynamo', '_dynamo'),
        ('names = model._modules', '_modules'),
        ('names = func._schema.returns', '_schema'),
        ("swapped = getattr(preprocessor, '_channel_conversion', False)", '_channel_conversion'),
        ("cfg = frame.f_locals['cfg']", 'f_locals'),
        ('ray.init(_node_name=name)', '_node_name'),
        ('y = torch.ops.aten.mm(a, b)', 'torch.ops'),
        ('y = torch.native_batch_norm(x)', 'native_batch_norm'),
        ('import ctypes', 'ctypes'),
        ('class Own(Metric):\n    def run(self): return self._coco_api', '_coco_api'),
        ('class Own(Metric):\n    def _load(self): return super()._load()', '_load'),
        ('class Own(Loop):\n    def _decide(self): return 1', '_decide'),
    ],
)
def test_a_look_inside_is_found(line: str, name: str) -> None:
    assert looks_inside({'own.py': ast.parse(line)}) == {Look('own.py', name)}


def test_what_is_public_or_ones_own_is_no_look_inside() -> None:
    code = """
from .parts import _Part
class Base(Module):
    _limit = 3
    def __init__(self): self._x = self._seen(dict(_scope_='mmdet'))
    def _seen(self, cfg): return self.__dict__
class Own(Base):
    def _seen(self, cfg): return super()._seen(cfg), self._x, self._limit, _Part(1)._replace(a=2)
"""
    assert not looks_inside({'own.py': ast.parse(code)})


def test_an_import_of_the_package_loads_no_app_and_no_runtime() -> None:
    code = 'import sys, mmdet_iouquery; print(*sys.modules)'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert 'mmdet_iouquery.engine.hooks' in loaded
    assert 'mmdet_iouquery.deploy.export' in loaded
    assert not [name for name in loaded if name.startswith('mmdet_iouquery.apps')]
    assert not {'onnx', 'onnxruntime', 'onnxslim', 'onnxscript', 'openvino'} & {*loaded}
