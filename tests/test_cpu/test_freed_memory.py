"""Memory that tensors free is kept for the next ones: the system is asked for it once."""

from __future__ import annotations

import platform
import resource
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from mmdet.registry import HOOKS

from mmdet_iouquery.compat import c_library
from mmdet_iouquery.engine.hooks import cpu_hooks

COUNT, STEPS = 6, 5
# a step makes tensors one after the other and frees them in the other order, as a training step does its activations
COUNT_FAULTS = f"""
import resource, sys, torch
from mmdet_iouquery.compat import keep_freed_memory, take_maps_from_heap
how, megabytes = sys.argv[1], int(sys.argv[2])
if how == 'keep':
    assert keep_freed_memory()
if how == 'from the heap':
    take_maps_from_heap()
def step():
    held = [torch.ones(megabytes * 2**18) for _ in range({COUNT})]
    while held:
        held.pop()
for _ in range(3):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range({STEPS}):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='the setting is of glibc')
def test_pages_are_asked_for_once() -> None:
    def faults(how: str, megabytes: int) -> float:
        """Of the pages that tensors of so many megabytes take."""
        call = [sys.executable, '-c', COUNT_FAULTS, how, str(megabytes)]
        found = subprocess.run(call, capture_output=True, text=True, check=True)
        return int(found.stdout.split()[-1]) / (STEPS * COUNT * megabytes * 2**20 / resource.getpagesize())

    assert faults('give back', 40) > 0.9
    assert faults('keep', 40) < 0.1
    assert faults('from the heap', 40) > 0.9, 'that is for smaller ones'
    assert faults('give back', 3) > 0.5
    assert faults('from the heap', 3) < 0.1


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, 'libc_ver', lambda: ('', ''))
    monkeypatch.setattr(c_library.ctypes, 'CDLL', lambda name: pytest.fail('called'))
    assert c_library.keep_freed_memory() is False


@pytest.mark.parametrize(('device', 'calls'), [('cpu', 1), ('meta', 0)])
def test_the_hook_acts_where_the_model_is_on_a_cpu(device: str, calls: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[None] = []
    monkeypatch.setattr(cpu_hooks, 'keep_freed_memory', lambda: seen.append(None))
    hook = HOOKS.build({'type': 'KeepFreedMemoryHook'})
    hook.before_train(SimpleNamespace(model=torch.nn.Linear(1, 1, device=device)))
    assert len(seen) == calls
