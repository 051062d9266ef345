"""A tool in a process of its own ends in its own time."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
from started_run import Started

from mmdet_iouquery.apps.child_process import run_child
from mmdet_iouquery.engine.launch import run_tool
from mmdet_iouquery.errors import TrainingStopped

CHILD = """
import pathlib, signal, sys, time
def save(signum, frame):
    time.sleep(1.0)  # longer than the quarter second that subprocess.run grants
    pathlib.Path(sys.argv[1]).write_text(signal.Signals(signum).name)
    raise SystemExit(128 + signum)
signal.signal(signal.SIGINT, save)
signal.signal(signal.SIGTERM, save)
print('ready', flush=True)
time.sleep(60)
"""


def hand_on(program: Path, argument: Path) -> int:
    """What a tool does that starts another."""
    return run_tool(lambda: run_child(program, argument))


@pytest.mark.skipif(os.name == 'nt', reason='no signals to a group of processes')
@pytest.mark.parametrize('signum', [signal.SIGINT, signal.SIGTERM], ids=['Ctrl-C', 'SIGTERM'])
def test_the_child_saves_before_it_ends(tmp_path: Path, signum: signal.Signals) -> None:
    (tmp_path / 'child.py').write_text(CHILD)
    parent = Started(tmp_path / 'log', hand_on, tmp_path / 'child.py', tmp_path / 'saved')
    parent.wait_for(lambda: 'ready\n' in parent.output())
    if signum == signal.SIGINT:
        os.killpg(parent.process.pid, signum)  # as a terminal does
    else:
        os.kill(parent.process.pid, signum)
    assert parent.status(seconds=30) == 128 + signum
    assert (tmp_path / 'saved').read_text() == signum.name
    assert f'stopped by {signum.name} in child.py; the same command goes on where it was' in parent.output()


@pytest.mark.skipif(os.name == 'nt', reason='no signals to a group of processes')
def test_a_child_that_was_not_told_is(tmp_path: Path) -> None:
    """Ctrl-C as a supervisor or a notebook sends it: to this process alone."""
    (tmp_path / 'child.py').write_text(CHILD)
    parent = Started(tmp_path / 'log', hand_on, tmp_path / 'child.py', tmp_path / 'saved')
    parent.wait_for(lambda: 'ready\n' in parent.output())
    os.kill(parent.process.pid, signal.SIGINT)
    assert parent.status(seconds=30) == 128 + signal.SIGINT
    assert (tmp_path / 'saved').read_text() == 'SIGTERM'


def test_its_status_is_handed_on_and_the_handlers_are_as_before(tmp_path: Path) -> None:
    program = tmp_path / 'program.py'
    program.write_text('import os, sys; print(os.environ["WORD"]); raise SystemExit(int(sys.argv[1]))')
    before = [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)]
    for status in (0, 3):
        with open(tmp_path / 'said', 'w') as output:
            assert run_child(program, status, stdout=output, environment={**os.environ, 'WORD': 'heard'}) == status
        assert (tmp_path / 'said').read_text() == 'heard\n'
    assert [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_signal_stops_what_would_come_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / 'deaf.py'
    program.write_text(
        'import os, signal; signal.signal(signal.SIGINT, signal.SIG_IGN); os.kill(os.getppid(), signal.SIGINT)'
    )
    with pytest.raises(TrainingStopped, match=r'SIGINT in deaf.py; the same command goes on'):
        run_child(program)  # it leaves with 0
    monkeypatch.setattr(sys, 'argv', ['quickstart.py', '--iters', '8', '--restart'])
    with pytest.raises(TrainingStopped, match=r'SIGINT in deaf.py; the same command without --restart goes on'):
        run_child(program)
