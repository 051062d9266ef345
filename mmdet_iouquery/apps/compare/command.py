"""What ``iouquery compare`` runs."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from ...config_files import find_config, model_name, tools_root
from ...config_options import read_options
from ...engine.launch import report_dataset
from ...engine.work_dir import made
from ...errors import InputError
from ...file_io import write_json, write_text
from ..analyze.chart import save_chart
from ..analyze.curves import Curve, Line, draw_curves
from ..child_process import run_child
from ..data.coco_set import CocoSet
from ..data.conversion import read_data
from ..data.earlier_runs import same_data_check
from ..train.arguments import NONE, check_size
from ..train.fit import Wishes
from .arguments import EVALUATIONS, parser
from .recorder import PARENT_VARIABLE
from .run_results import RunResult, read_result
from .settings import (
    CONFIG_NAME,
    Changes,
    Run,
    build_missing_digits,
    changed_config,
    require_buildable,
    require_same_data,
    require_same_settings,
    runs_of,
    set_others_aside,
    write_settings,
)
from .table import by_config, comparison_table
from .times import kept, measured
from .trade_off import points, trade_off_chart

OUTPUT_NAME = 'output.txt'


def compare(tools: Path, arguments: Sequence[str] | None = None) -> None:
    """What :func:`execute` does, with the arguments of a command line."""
    execute(parser().parse_args(arguments), tools)


def execute(args: argparse.Namespace, tools: Path | None = None) -> None:
    """Train what isn't trained yet, and report.

    Args:
        args: of the command line.
        tools: folder of ``train.py``; None: of the one that came with the package.

    Raises:
        InputError: the arguments, configs or data are unfit, or a training failed.
    """
    _check(args)
    work_dir = Path(args.work_dir).resolve()
    if args.report_only:
        print(report(work_dir, finished_runs(work_dir, [*map(_name, args.configs)], args.seeds), args.times))
        return
    with made(work_dir):
        runs = prepare(args, work_dir)
    results: list[RunResult] = []
    for number, run in enumerate(runs, start=1):
        results.append(finished(tools or tools_root(), run, f'{run.name}, seed {run.seed} ({number} of {len(runs)})'))
        report(work_dir, results)  # after each run, so that a look in between shows what there is
    print(f'\n{report(work_dir, results, args.times)}')
    figures = 'curves.png and trade-off.png' if (work_dir / 'trade-off.png').is_file() else 'curves.png'
    print(f'\nin {work_dir}: table.md, {figures}, results.json; each run in CONFIG/seed_N')


def _name(config: str) -> str:
    """What a config's runs are called: as its model, which a short name of a shipped config leads to."""
    try:
        return model_name(find_config(config))
    except InputError:  # for --report-only the runs are enough
        return model_name(config)


def _check(args: argparse.Namespace) -> None:
    """Raise InputError for arguments that can't be meant, before anything is read."""
    if not args.configs and not args.report_only:
        raise InputError('no config to compare; name one or more files, or shipped configs such as rtdetr/...py')
    names = [*map(_name, args.configs)]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f'{names.count(name)} configs are called {name}, the name of their folder; rename one')
    seeds = args.seeds or []
    for seed in seeds:
        if seed < 0 or seeds.count(seed) > 1:
            raise InputError(
                f'--seeds: {seed} is {"negative" if seed < 0 else "given twice"}; name different seeds, from 0 on'
            )
    if args.times is not None and args.times < 1:
        raise InputError(f'--times {args.times}: name how often to time each, at least once')
    if args.iters is not None and args.iters < 1:
        raise InputError(f'--iters {args.iters}: there must be at least one step')
    if args.batch is not None and args.batch < 1:
        raise InputError(f'--batch {args.batch}: name at least 1')
    check_size(args.size)
    if args.evaluations is not None:
        if args.iters is None:
            raise InputError('--evaluations needs --iters; without it, each config evaluates when it says')
        if not 1 <= args.evaluations <= args.iters:
            raise InputError(
                f'--evaluations must lie in [1, {args.iters}], the number of steps, got {args.evaluations}'
            )


def prepare(args: argparse.Namespace, work_dir: Path) -> list[Run]:
    """Look at everything that can be wrong, then write the config of every run that isn't finished."""
    paths = [find_config(name) for name in args.configs]
    data = _data(args, work_dir) if args.data else None
    evaluations = args.evaluations or min(EVALUATIONS, args.iters or EVALUATIONS)
    wishes = Wishes(data=data, size=args.size, batch=args.batch)
    changes = Changes(wishes, args.iters, evaluations, read_options(args.cfg_options), args.weights == NONE)
    configs = [changed_config(path, changes) for path in paths]
    require_same_data(paths, configs)
    runs = [run for path, cfg in zip(paths, configs) for run in runs_of(path, cfg, args.seeds or [0], work_dir)]
    if not args.restart:
        for run in runs:
            require_same_settings(run)
    for path, cfg in zip(paths, configs):
        build_missing_digits(cfg)
        report_dataset(cfg, splits=('train', 'val'), of=model_name(path) if len(paths) > 1 else '')
        require_buildable(path, cfg)
    for run in runs:
        if args.restart:
            set_others_aside(run)
        if read_result(run.folder) is None:
            write_settings(run)
    return runs


def _data(args: argparse.Namespace, work_dir: Path) -> CocoSet:
    folders = [work_dir / _name(config) / f'seed_{seed}' for config in args.configs for seed in args.seeds or [0]]
    check = None if args.restart else same_data_check(args.data, folders)
    return read_data(args.data, out=work_dir / 'annotations', option='--work-dir', check=check)


def finished(tools: Path, run: Run, title: str) -> RunResult:
    """The result of a run, which is trained, or trained on, in a process of its own if it isn't finished."""
    result = read_result(run.folder)
    if result is not None:
        print(f'== {title}: finished before', flush=True)
        return result
    output = run.folder / OUTPUT_NAME
    print(f'== {title}: training; its log is {output}', flush=True)
    arguments = [run.folder / CONFIG_NAME, '--work-dir', run.folder, '--resume']
    environment = {**os.environ, PARENT_VARIABLE: str(os.getpid())}
    with open(output, 'a', encoding='utf-8') as log:
        status = run_child(tools / 'train.py', *arguments, stdout=log, environment=environment)
    result = read_result(run.folder)
    if result is None:
        raise InputError(
            f'{title}: the training ended with status {status}; what it said stands above and in {output}; correct '
            'that, and the same command goes on from its last checkpoint'
        )
    print(f'   AP {100 * (result.final.ap or 0):.1f}', flush=True)
    return result


def finished_runs(work_dir: Path, names: list[str], seeds: list[int] | None) -> list[RunResult]:
    """The results in a folder, of all configs or of those named, in that order, and by seed.

    Raises:
        InputError: there is none, or none of a config that was named; seeds of a config were trained otherwise.
    """
    runs_by_config: dict[str, list[RunResult]] = {}
    for folder in sorted(work_dir.glob('*/seed_*')):
        result = read_result(folder)
        if result is not None and (seeds is None or result.seed in seeds):
            runs_by_config.setdefault(folder.parent.name, []).append(result)
    for name in names or ['*'][: not runs_by_config]:
        if name not in runs_by_config:
            raise InputError(f'{work_dir}/{name} has no finished run of these seeds; leave --report-only out to train')
    chosen = {name: sorted(runs_by_config[name], key=lambda run: run.seed) for name in names or runs_by_config}
    for name, runs in chosen.items():
        _require_alike(work_dir / name, runs)
    return [run for runs in chosen.values() for run in runs]


def _require_alike(folder: Path, runs: Sequence[RunResult]) -> None:
    """Raise InputError where runs of one config, of which a mean is taken, were not asked for the same."""
    asked: dict[str, list[str]] = {}
    for run in runs:
        size = 'x'.join(map(str, run.image_size))
        asked.setdefault(f'{run.steps} steps of {run.batch_size} images of {size} px', []).append(str(run.seed))
    if len(asked) > 1:
        kinds = ', '.join(f'seed {" and ".join(seeds)}: {kind}' for kind, seeds in asked.items())
        raise InputError(
            f'{folder} has runs that no mean can be taken of ({kinds}); name those of one kind with --seeds, or train '
            'each kind in a --work-dir of its own'
        )


def report(work_dir: Path, results: list[RunResult], rounds: int | None = None) -> str:
    """Write ``results.json``, ``table.md`` and ``curves.png``; returns the table.

    With ``rounds``, steps and predictions are timed, see :func:`.times.measured`; without, the times of an earlier call
    count, if it had the same configs. With times, ``trade-off.png`` is drawn.
    """
    write_json(work_dir / 'results.json', [result.to_json() for result in results])
    groups = by_config(results)
    times = measured(work_dir, results, rounds) if rounds else kept(work_dir, groups)
    text = comparison_table(results, times)
    write_text(work_dir / 'table.md', text)
    draw_curves([_curve(name, runs) for name, runs in groups.items()], work_dir / 'curves.png')
    if times:
        save_chart(trade_off_chart(points(groups, times)), work_dir)
    return text


def _curve(name: str, runs: list[RunResult]) -> Curve:
    ap = tuple(Line.of((evaluation.step, evaluation.ap) for evaluation in run.evaluations) for run in runs)
    return Curve(name, ap=ap, loss=tuple(Line.of(run.losses) for run in runs))
