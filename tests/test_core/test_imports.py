"""The core is torch only."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / 'mmdet_iouquery'

WITHOUT_MMDET = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ('mmdet', 'mmcv', 'mmengine'):
            raise ModuleNotFoundError(f'No module named {name!r}', name=name)

sys.meta_path.insert(0, Absent())
import importlib.metadata

def absent(cls, name):
    raise importlib.metadata.PackageNotFoundError(name)

importlib.metadata.Distribution.from_name = classmethod(absent)
import torch
from mmdet_iouquery.core import grid_anchors
print(grid_anchors([(2, 2)])[0].shape)
"""


def test_core_runs_without_mmdet() -> None:
    done = subprocess.run([sys.executable, '-c', WITHOUT_MMDET], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == 'torch.Size([1, 4, 4])', done.stderr


def test_core_imports_nothing_from_above() -> None:
    for path in (PACKAGE / 'core').rglob('*.py'):
        depth = len(path.relative_to(PACKAGE / 'core').parts)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                below = node.module == 'compat'
                assert node.level <= depth or below, f'{path}:{node.lineno} imports from above core'
                assert (node.module or '').split('.')[0] not in ('mmdet', 'mmcv', 'mmengine')


def test_parts_know_nothing_of_what_makes_cpus_fast() -> None:
    """``core`` and ``models`` say what is computed; ``cpu`` stands on them.

    The back ends of deformable attention are alternatives of one operator, chosen by device, so they name theirs.
    """
    words = re.compile(r'winograd|can_fuse|(?<![a-z])fused|\bCPUs?\b')
    sources = [path for folder in ('core', 'models') for path in (PACKAGE / folder).rglob('*.py')]
    assert len(sources) > 40
    for path in sources:
        text = path.read_text()
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                names = [alias.name for alias in node.names] + [getattr(node, 'module', None) or '']
                assert not any('cpu' in name.split('.') for name in names), f'{path}:{node.lineno} imports cpu'
        if 'deformable_attention' not in path.parts:
            match = words.search(text)
            assert match is None, f'{path} has the word {match.group() if match else None}'
