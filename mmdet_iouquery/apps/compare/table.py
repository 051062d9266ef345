"""The table of a comparison, as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import mean, stdev

from .run_results import RunResult
from .times import Times

_NONE = '-'
_HEADS = (
    'config', 'seeds', 'AP', 'AP50', 'AP75', 'AP_s', 'AP_m', 'AP_l',
    'parameters (M)', 'FLOPs (G)', 'time a step (s)', 'peak memory (MB)',
)  # fmt: skip
_AP_FIELDS = ('ap', 'ap50', 'ap75', 'ap_s', 'ap_m', 'ap_l')


def by_config(results: Iterable[RunResult]) -> dict[str, list[RunResult]]:
    """Results by config, in the order in which they come."""
    groups: dict[str, list[RunResult]] = {}
    for result in results:
        groups.setdefault(result.config, []).append(result)
    return groups


def comparison_table(results: Sequence[RunResult], times: Mapping[str, Times] | None = None) -> str:
    """The whole text: what was trained, a row for each config, and what the columns mean.

    Args:
        times: of each config, measured in turn; None: of a step, what the runs recorded.
    """
    groups = by_config(results)
    heads = (*_HEADS, 'time an image (ms)') if times else _HEADS
    rows = [heads, (':--', *['--:'] * (len(heads) - 1))]
    rows += [_row(runs, times[name] if times else None) for name, runs in groups.items()]
    table = '\n'.join(f'| {" | ".join(row)} |' for row in rows)
    return f'{_header(groups)}\n\n{table}\n\n{_notes(groups, in_turn=bool(times))}\n'


def mean_and_deviation(values: Iterable[float | None], digits: int) -> str:
    """``mean ± sample standard deviation``; a single value alone, and a dash for none."""
    numbers = [value for value in values if value is not None]
    if not numbers:
        return _NONE
    if len(numbers) == 1:
        return f'{numbers[0]:.{digits}f}'
    return f'{mean(numbers):.{digits}f} ± {stdev(numbers):.{digits}f}'


def _row(runs: list[RunResult], times: Times | None) -> tuple[str, ...]:
    finals = [run.final for run in runs]
    percent = [[None if value is None else 100 * value for value in column] for column in zip(*finals)]
    aps = dict(zip(finals[0]._fields, percent))
    return (
        runs[0].config,
        str(len(runs)),
        *(mean_and_deviation(aps[field], 1) for field in _AP_FIELDS),
        f'{runs[0].parameters / 1e6:.2f}',
        f'{runs[0].flops / 1e9:.2f}',
        f'{times.step:.3f}' if times else mean_and_deviation((run.step_seconds for run in runs), 3),
        mean_and_deviation((run.memory_mb for run in runs), 0),
        *([f'{1000 * times.image:.1f}'] if times else []),
    )


def _header(groups: dict[str, list[RunResult]]) -> str:
    runs = [run for group in groups.values() for run in group]

    def each(value: Callable[[RunResult], str]) -> str:
        """A value that all share, or each config's own."""
        own = {name: ', '.join(sorted({value(run) for run in group})) for name, group in groups.items()}
        shared = set(own.values())
        return shared.pop() if len(shared) == 1 else '; '.join(f'{name}: {text}' for name, text in own.items())

    seeds = {name: ', '.join(str(run.seed) for run in group) for name, group in groups.items()}
    shown = set(seeds.values())
    facts = [
        ('training steps', each(lambda run: str(run.steps))),
        ('batch size', each(lambda run: str(run.batch_size))),
        ('image size (height x width)', each(lambda run: f'{run.image_size[0]} x {run.image_size[1]} px')),
        ('seeds', shown.pop() if len(shown) == 1 else '; '.join(f'{name}: {text}' for name, text in seeds.items())),
        ('evaluated on', each(lambda run: run.val_set)),
        ('torch', each(lambda run: run.torch)),
        ('device', each(lambda run: run.device)),
        ('date', max(run.finished for run in runs)[:10]),
    ]
    return '\n'.join(f'- {name}: {value}' for name, value in facts)


def _notes(groups: dict[str, list[RunResult]], *, in_turn: bool) -> str:
    orders: dict[int, set[str]] = {}
    for run in (run for group in groups.values() for run in group):
        orders.setdefault(run.seed, set()).add(run.data_order)
    different = sorted(seed for seed, seed_orders in orders.items() if len(seed_orders) > 1)
    order = 'For each seed, all configs got the same images in the same order.'
    if different:
        order = f'The configs did not get the same images in the same order (seeds {", ".join(map(str, different))}).'
    where = ', of all configs in turn; an image: to its detections, the model prepared for inference' if in_turn else ''
    return '\n'.join(
        (
            f"AP is COCO's, in %, after the last step; a dash: no object of that size, or no step to time. {order}",
            'Several seeds: mean ± sample standard deviation.',
            'FLOPs: one forward pass on the first validation image, multiplication and addition counted as two;',
            'convolutions and matrix products (attention included) count, sampling and element-wise work do not.',
            f'Time: median, without data loading{where}. Peak memory: tensors on a GPU; on a CPU the whole process.',
        )
    )
