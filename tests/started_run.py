"""Trainings as ``tools/train.py`` starts them, in processes that are forked from one that has imported everything."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Callable

from runs import SMALL_MODEL
from torch.multiprocessing import start_processes  # type: ignore[attr-defined]  # in no __all__

from mmdet_iouquery import find_coco_set
from mmdet_iouquery.apps.quickstart.command import config_text
from mmdet_iouquery.apps.quickstart.digits import build_digits

os.environ.setdefault('OMP_NUM_THREADS', '1')  # for the server below: its children share two cores
CONTEXT = multiprocessing.get_context('forkserver')
CONTEXT.set_forkserver_preload(['plain_configs', 'mmdet_iouquery.engine.launch', 'mmdet.apis', 'toy_run'])


def small_config(folder: Path, more: str = '') -> Path:
    """A config that trains a small RT-DETR on eight images of handwriting, with ``more`` of its own."""
    data = find_coco_set(build_digits(folder / 'digits', num_train=8, num_val=4, image_size=96, progress=False))
    path = folder / 'config.py'
    path.write_text(config_text(data, iters=10_000, image_size=64) + SMALL_MODEL + more)
    return path


class Started:
    """A call that runs, or has ended, in a process that leads its own group; what it returns is the exit status."""

    def __init__(self, log: Path, call: Callable[..., object], *arguments: Any) -> None:
        self.log = log
        self.process = CONTEXT.Process(target=_run, args=(str(log), call, arguments))
        self.process.start()

    def wait_for(self, reached: Callable[[], Any], seconds: float = 120) -> None:
        """Wait until something is the case, while the process lives."""
        until = time.monotonic() + seconds
        while not reached():
            assert self.process.is_alive() and time.monotonic() < until, self.output()[-3000:]
            time.sleep(0.005)

    def kill(self) -> None:
        """Kill it with its group; alone where it has not come so far as to lead one, and so has started nothing."""
        assert self.process.pid is not None
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            self.process.kill()

    def status(self, seconds: float = 120) -> int | None:
        """The exit status, once it has ended; negative: the number of the signal that killed it."""
        self.process.join(seconds)
        if self.process.is_alive():
            self.kill()
            raise AssertionError(f'it hangs: {self.output()[-3000:]}')
        return self.process.exitcode

    def output(self) -> str:
        """All that it wrote to the terminal."""
        return self.log.read_text(errors='replace') if self.log.exists() else ''


def ended(log: Path, call: Callable[..., object], *arguments: Any) -> tuple[int | None, str]:
    """Exit status of a call, and all that it wrote to the terminal."""
    run = Started(log, call, *arguments)
    return run.status(), run.output()


def in_processes(call: Callable[..., None], *arguments: Any, count: int = 2, seconds: float = 240) -> None:
    """Run ``call(rank, *arguments)`` for each of ``count`` ranks at once; one that fails or hangs fails the test."""
    running = start_processes(call, arguments, count, join=False, start_method=CONTEXT.get_start_method())
    ends = time.monotonic() + seconds
    while not running.join(timeout=max(0.0, ends - time.monotonic())):  # returns at each process that ends
        assert time.monotonic() < ends, 'a process hangs'


def run_train(*arguments: object) -> int:
    """What ``tools/train.py`` does with these arguments."""
    from mmdet_iouquery.engine.launch import run_tool, train

    return run_tool(lambda: train([str(argument) for argument in arguments]))


def run_test(*arguments: object) -> int:
    """What ``tools/test.py`` does with these arguments."""
    from mmdet_iouquery.engine.launch import run_tool, test

    return run_tool(lambda: test([str(argument) for argument in arguments]))


def errors(text: str) -> list[str]:
    """The lines that tell of an error; there must be no traceback."""
    assert 'Traceback' not in text, text[text.index('Traceback') :][:3000]
    return [line for line in text.splitlines() if line.startswith('error: ')]


def _run(log: str, call: Callable[..., Any], arguments: Sequence[Any]) -> None:
    gc.freeze()  # as in conftest.py
    os.setsid()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # a traceback comes last, as it happened
    sys.exit(call(*arguments))
