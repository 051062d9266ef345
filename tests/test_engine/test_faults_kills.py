"""A training that is killed, again and again, at any moment, goes on from its last step that was saved.

FAULT_KILLS=50 kills fifty times in place of three, and FAULT_REPORT=FILE writes down what was hit.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import time
from collections import Counter
from pathlib import Path

import torch
from started_run import Started, ended, run_train, small_config

from mmdet_iouquery.checkpoints.files import damage
from mmdet_iouquery.engine.resume import OUTDATED, latest_checkpoint

KILLS = int(os.environ.get('FAULT_KILLS', 3))
WRITE_SECONDS, STEP_SECONDS = 0.4, 0.3

SETTINGS = """
custom_imports = dict(imports=['mmdet_iouquery', 'slow_writes'], allow_failed_imports=False)
custom_hooks = [dict(type='JournalHook', journal={journal!r}), dict(type='EMAHook', momentum=0.1, priority=49)]
default_hooks['checkpoint'].update(
    interval=1,
    max_keep_ckpts=1,
    backend_args=dict(_delete_=True, backend='slow', journal={journal!r}, seconds={seconds}),
)
train_cfg['val_interval'] = 100000
"""


def lines(journal: Path) -> list[str]:
    return journal.read_text().splitlines() if journal.exists() else []


def phase(lines_of_run: list[str]) -> str:
    """What a training was doing when it was killed, by the last line of its journal."""
    last = lines_of_run[-1].split()[0] if lines_of_run else ''
    return {'': 'start-up', 'writing': 'write'}.get(last, 'steps')


def kill(run: Started, journal: Path, before: int, target: str, chance: random.Random, start_seconds: float) -> None:
    """Kill in the start-up after a random time; or in a random write or step, from where it begins to after its end."""
    if target == 'start-up':
        time.sleep(chance.uniform(0, start_seconds))
    else:
        word, seconds = ('writing', WRITE_SECONDS) if target == 'write' else ('written', STEP_SECONDS)
        which = chance.randint(1, 3)
        run.wait_for(lambda: sum(line.startswith(word) for line in lines(journal)[before:]) >= which)
        time.sleep(chance.uniform(0, seconds))
    run.kill()
    assert run.status() == -signal.SIGKILL, run.output()[-2000:]


def check_files(work_dir: Path, written: int) -> int:
    """All that has the name of a checkpoint is whole, and the newest has every step that was saved; its iteration."""
    for path in [*work_dir.glob('*.pth'), *work_dir.glob(f'*{OUTDATED}')]:
        assert damage(path) is None, path
    newest = latest_checkpoint(work_dir)
    if newest is None:
        assert written == 0
        return 0
    done = torch.load(newest, weights_only=True)['meta']['iter']
    assert newest.name in (f'iter_{done}.pth', f'iter_{done}.pth{OUTDATED}') and done >= written
    return done


def check_journal(lines_of_run: list[str], begin: int) -> None:
    """The steps that were done follow on the checkpoint, one by one."""
    done = [int(line.split()[1]) for line in lines_of_run if line.startswith('step')]
    if lines_of_run:
        assert lines_of_run[0] == f'begin {begin}' and done == list(range(begin + 1, begin + 1 + len(done)))


def test_killed_at_random_moments(tmp_path: Path) -> None:
    journal, work_dir, chance = tmp_path / 'journal', tmp_path / 'run', random.Random(KILLS)
    config = small_config(tmp_path, SETTINGS.format(journal=str(journal), seconds=WRITE_SECONDS))
    arguments = [config, '--work-dir', work_dir, '--resume']
    started, begin, written, hit, leftovers, start_seconds = time.monotonic(), 0, 0, Counter(), 0, 2.0
    for number in range(KILLS):
        target, before, begun = ('write', 'start-up', 'steps')[number % 3], len(lines(journal)), time.monotonic()
        run = Started(tmp_path / f'{number}.log', run_train, *arguments)
        if target != 'start-up':
            run.wait_for(lambda: len(lines(journal)) > before)  # noqa: B023  it is called here and now
            start_seconds = time.monotonic() - begun if number else start_seconds  # the first one imports everything
        kill(run, journal, before, target, chance, start_seconds)
        done = lines(journal)[before:]
        check_journal(done, begin)
        hit[phase(done)] += 1
        leftovers += phase(done) == 'write' and len(list(work_dir.glob('*.tmp')))
        written = max([written, *(int(re.findall(r'\d+', line)[0]) for line in done if line.startswith('written'))])
        begin = check_files(work_dir, written)
    before, newest = len(lines(journal)), latest_checkpoint(work_dir)
    status, output = ended(
        tmp_path / 'last.log', run_train, *arguments, '--cfg-options', f'train_cfg.max_iters={begin + 2}'
    )
    assert status == 0, output[-3000:]
    assert begin == 0 or f'resuming from {newest}' in [line.split(', ')[0] for line in output.splitlines()]
    check_journal(lines(journal)[before:], begin)
    assert check_files(work_dir, begin + 2) == begin + 2
    assert [path.name for path in work_dir.glob('*.pth*')] == [f'iter_{begin + 2}.pth'], 'one is to be kept'
    assert hit['write'] + hit['steps'] > 0 and sum(hit.values()) == KILLS
    report = {
        'kills': KILLS,
        **hit,
        'torn temporary files': leftovers,
        'steps trained': begin + 2,
    }
    report['seconds'] = round(time.monotonic() - started)
    if 'FAULT_REPORT' in os.environ:
        Path(os.environ['FAULT_REPORT']).write_text(json.dumps(report))
