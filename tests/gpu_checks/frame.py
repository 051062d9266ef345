"""Runs parts in processes of their own, each within its time, and keeps what they found, however they end."""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

LINES_KEPT = 60
"""Of the log of a part that did not pass."""
GRACE = 3.0
"""Seconds from SIGTERM to SIGKILL."""
TOO_LITTLE = 5.0
"""Seconds that are not worth beginning a part with."""


class Part(NamedTuple):
    """One part of the checks."""

    limit: float
    """Seconds."""
    about: str


class SkipError(Exception):
    """What a part, or a step of it, says when the machine lacks what it needs."""


class Report:
    """What a part finds. It is on the disk after every entry, so that a part that dies leaves what it had."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found: dict[str, Any] = {}
        self.failures: list[str] = []

    def add(self, name: str, value: Any) -> None:
        """Note a number, a text, or lists and dicts of these."""
        print(f'{name}: {value}', flush=True)
        self.found[name] = value
        self._write()

    def holds(self, claim: str, *, true: bool) -> None:
        """Note whether something is so; where it is not, the part goes on and has failed."""
        if not true:
            self._fail(f'not so: {claim}')

    def at_most(self, name: str, value: float, limit: float) -> None:
        """Note a number that must not exceed a limit; NaN does."""
        self.add(name, value)
        if not value <= limit:
            self._fail(f'{name} is {value:.3g}, over {limit:.3g}')

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """A stretch whose end, if it is an error, ends it alone."""
        try:
            yield
        except SkipError as reason:
            self.add(f'{name}: skipped', str(reason))
        except Exception as error:
            traceback.print_exc()
            lines = str(error).strip().splitlines() or ['']
            self._fail(f'{name}: {type(error).__name__}: {lines[0]}')

    def _fail(self, text: str) -> None:
        print(f'FAILED {text}', flush=True)
        self.failures.append(text)
        self._write()

    def _write(self) -> None:
        temporary = self.path.with_suffix('.part')
        temporary.write_text(json.dumps({'found': self.found, 'failures': self.failures}), encoding='utf-8')
        os.replace(temporary, self.path)


def run_child(call: Callable[[Report], None], path: Path, limit: float) -> int:
    """Run one part in this process and return its exit status; where it stood is printed before its time is up."""
    faulthandler.enable()
    faulthandler.dump_traceback_later(max(1.0, limit - TOO_LITTLE), exit=False)
    report = Report(path)
    try:
        call(report)
    except SkipError as reason:
        report.add('skipped', str(reason))
        return 0
    return 1 if report.failures else 0


def run_parts(
    parts: Mapping[str, Part], command: Callable[[str, Path, float], list[str]], out: Path, budget: float
) -> dict[str, dict[str, Any]]:
    """Run parts one after the other and return what became of each.

    Args:
        parts: in their order.
        command: gives the command line of a part: from its name, the file for its report and its seconds.
        out: a folder for ``results.json``, written after every part, and for the parts' logs.
        budget: seconds for all; a part has no more than what is left.
    """
    out.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + budget
    results: dict[str, dict[str, Any]] = {name: {'state': 'not begun'} for name in parts}
    for name, part in parts.items():
        limit = min(part.limit, end - time.monotonic())
        if limit < TOO_LITTLE:
            results[name] = {'state': 'not begun', 'failures': ['the time for all parts was up']}
        else:
            print(f'{name}: {part.about} (at most {limit:.0f} s)', flush=True)
            report = out / f'{name}.json'
            report.unlink(missing_ok=True)
            results[name] = _one(command(name, report, limit), report, out / f'{name}.log', limit)
            print(f'    {_in_words(results[name])}', flush=True)
        (out / 'results.json').write_text(json.dumps(results, indent=1) + '\n', encoding='utf-8')
    return results


def _one(command: list[str], report: Path, log: Path, limit: float) -> dict[str, Any]:
    start = time.monotonic()
    with log.open('wb') as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            state = _state(process.wait(limit))
        except subprocess.TimeoutExpired:
            state = 'timed out'
        finally:  # whatever it has started goes with it, also when this process is interrupted
            _end_group(process)
    content = json.loads(report.read_text(encoding='utf-8')) if report.exists() else {'found': {}, 'failures': []}
    report.unlink(missing_ok=True)
    if state == 'passed' and 'skipped' in content['found']:
        state = 'skipped'
    result = {'state': state, 'seconds': round(time.monotonic() - start, 1), **content}
    if state not in ('passed', 'skipped'):
        result['log'] = log.read_text(encoding='utf-8', errors='replace').splitlines()[-LINES_KEPT:]
    return result


def _state(status: int) -> str:
    if status < 0:
        return f'killed by {signal.Signals(-status).name}'
    return 'passed' if status == 0 else 'failed'


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Ask first: torchrun's workers lead groups of their own, and it alone ends them."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)


def _in_words(result: Mapping[str, Any]) -> str:
    reason = result['found'].get('skipped') or '; '.join(result['failures'])
    if not reason and 'log' in result:
        reason = next((line for line in reversed(result['log']) if line.strip()), 'nothing was said')
    return f'{result["state"]}, {result["seconds"]:.0f} s' + (f': {reason}' if reason else '')


def summary(results: Mapping[str, Mapping[str, Any]]) -> str:
    """How many parts ended in which way."""
    states = [result['state'] for result in results.values()]
    return ', '.join(f'{states.count(state)} {state}' for state in dict.fromkeys(states))


def exit_status(results: Mapping[str, Mapping[str, Any]]) -> int:
    """0: every part passed, or lacks what it needs."""
    return 0 if all(result['state'] in ('passed', 'skipped') for result in results.values()) else 1


def refuse(text: str) -> int:
    """Say in one sentence why there is nothing to run."""
    print(f'error: {text}', file=sys.stderr)
    return 2
