"""Memory that tensors free is kept for the next ones: the system is asked for it once."""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from mmdet.registry import HOOKS

from mmdet_iouquery.compat import native
from mmdet_iouquery.engine.hooks import cpu_hooks

TENSOR_MB, COUNT, STEPS = 40, 6, 5
# a step makes tensors one after the other and frees them in the other order, as a training step does its activations
COUNT_FAULTS = f"""
import resource, sys, torch
from mmdet_iouquery.compat import keep_freed_memory
if sys.argv[1] == 'keep':
    assert keep_freed_memory()
def step():
    held = [torch.ones({TENSOR_MB} * 2**18) for _ in range({COUNT})]
    while held:
        held.pop()
for _ in range(3):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range({STEPS}):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def printed(code: str, *arguments: str) -> list[int]:
    """Of a process that imports torch, and not mmdet."""
    command, environment = [sys.executable, '-c', code, *arguments], {**os.environ, 'MMDET_IOUQUERY_REGISTER': 'later'}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return [int(word) for word in done.stdout.split()]


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='the setting is of glibc')
def test_pages_are_asked_for_once() -> None:
    pages = STEPS * COUNT * TENSOR_MB * 2**20 // resource.getpagesize()
    (given_back,), (kept,) = printed(COUNT_FAULTS, 'give back'), printed(COUNT_FAULTS, 'keep')
    assert given_back > 0.9 * pages and kept < 0.1 * pages


COUNT_MAPPED = """
import ctypes, torch
from mmdet_iouquery.compat import take_maps_from_heap
class Mallinfo(ctypes.Structure):
    names = 'arena', 'ordblks', 'smblks', 'hblks', 'hblkhd', 'usmblks', 'fsmblks', 'uordblks', 'fordblks', 'keepcost'
    _fields_ = [(name, ctypes.c_size_t) for name in names]
mallinfo = ctypes.CDLL(None).mallinfo2
mallinfo.restype = Mallinfo
def mapped(megabytes):
    before = mallinfo().hblkhd
    block = torch.empty(megabytes * 10**6, dtype=torch.uint8)
    return mallinfo().hblkhd - before
take_maps_from_heap()
print(mapped(3), mapped(30), mapped(40))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='the setting is of glibc')
def test_blocks_of_up_to_32_megabytes_come_from_the_heap() -> None:
    if not hasattr(ctypes.CDLL(None), 'mallinfo2'):
        pytest.skip('this glibc is older than 2.33, and does not tell')
    small, medium, large = printed(COUNT_MAPPED)
    assert small == medium == 0 and large > 40 * 10**6


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, 'libc_ver', lambda: ('', ''))
    monkeypatch.setattr(native.ctypes, 'CDLL', lambda name: pytest.fail('called'))
    assert native.keep_freed_memory() is False


@pytest.mark.parametrize(('device', 'calls'), [('cpu', 1), ('meta', 0)])
def test_the_hook_acts_where_the_model_is_on_a_cpu(device: str, calls: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[None] = []
    monkeypatch.setattr(cpu_hooks, 'keep_freed_memory', lambda: seen.append(None))
    hook = HOOKS.build({'type': 'KeepFreedMemoryHook'})
    hook.before_train(SimpleNamespace(model=torch.nn.Linear(1, 1, device=device)))
    assert len(seen) == calls
