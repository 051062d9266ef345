"""The harness: sides in turn, medians, counted operations, what is written. No time is measured."""

from __future__ import annotations

import json
import pickle
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._inductor import config as inductor

from mmdet_iouquery.apps import timing
from mmdet_iouquery.apps.benchmark import command, criterion, inference
from mmdet_iouquery.apps.benchmark.criterion import Case, criterion_sides
from mmdet_iouquery.apps.benchmark.figures import growth_chart
from mmdet_iouquery.apps.benchmark.training import peak_of_tensors
from mmdet_iouquery.errors import InputError

OPERATIONS = {'R18': 4619 / 6, 'D-FINE-N': 10084 / 10}
"""By model, the most that ours may have: a part of the authors' (068dfde; 4a1f73a) in a step of 16 images, 20 objects,
``tools/benchmark.py criterion --models ... --reference ...``, 2026-11-28. Theirs grow with the step, ours do not."""


def test_sides_are_called_in_turn_and_the_first_round_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, calls = [0.0], []
    takes = {'a': iter([100.0, 3.0, 1.0, 2.0]), 'b': iter([100.0, 6.0, 2.0, 4.0])}

    def side(name: str) -> Any:
        def call() -> None:
            calls.append(name)
            clock[0] += next(takes[name])

        return call

    monkeypatch.setattr(timing.time, 'perf_counter', lambda: clock[0])
    actual = timing.time_in_turn({'a': side('a'), 'b': side('b')}, 3)
    assert calls == ['a', 'b'] * 4
    assert actual == {'a': (2.0, 1.5, 2.5), 'b': (4.0, 3.0, 5.0)}
    rows = timing.rows_of(actual, 'b', batch=2)
    assert [(row['side'], row['batch'], row['ratio']) for row in rows] == [('a', 2, 0.5), ('b', 2, 1.0)]
    assert timing.rows_of(actual, 'c')[0]['ratio'] is None
    with pytest.raises(ValueError, match='rounds must be at least 1'):
        timing.time_in_turn({}, 0)


def test_operations_are_counted_forward_and_backward_without_views() -> None:
    x = torch.ones(2, 3, requires_grad=True)
    with timing.counted_operations() as operations:
        (x.view(6) * 2).sum().backward()
    # mul, sum; ones for the root's gradient, its expansion is a view; mul backward
    assert operations == Counter({'aten.mul.Tensor': 2, 'aten.sum.default': 1, 'aten.ones_like.default': 1})


@pytest.mark.parametrize('case', [Case(2, 3, 10), Case(3, 1, 12)])
@pytest.mark.parametrize('model_name', OPERATIONS)
def test_the_criterion_takes_a_fraction_of_the_authors_operations(model_name: str, case: Case) -> None:
    """And asks the device for no number that the host has to wait for, but for the costs that the solver gets."""
    call = criterion_sides(case, None, model_name)[criterion.OURS]
    assert torch.isfinite(call())
    with timing.counted_operations() as operations:
        call()
    assert sum(operations.values()) <= OPERATIONS[model_name]
    assert not [name for name in operations if 'nonzero' in name]
    # on a GPU the solver's transfer is the one; here mmdet's losses look at one number each on the host
    assert operations['aten._local_scalar_dense.default'] <= 2


@pytest.mark.parametrize('model_name', OPERATIONS)
def test_operations_do_not_grow_with_the_step(model_name: str) -> None:
    """But for a few by each layer of the decoder, of 565 (R18) and 826 in all: no term loops over layers."""
    counts = []
    for case in (Case(2, 3, 10), Case(4, 7, 20), Case(2, 3, 10, layers=9)):
        call = criterion_sides(case, None, model_name)[criterion.OURS]
        with timing.counted_operations() as operations:
            call()
        counts.append(sum(operations.values()))
    assert counts[0] == counts[1]
    assert counts[2] - counts[0] <= 3 * (6 if model_name == 'R18' else 10)


def test_what_is_measured_is_printed_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ('STANDARD', 'SMALL'):
        monkeypatch.setattr(criterion, name, Case(1, 2, 4, 2))
    monkeypatch.setattr(criterion, 'GROWTH', {'objects': (1, 3), 'layers': (1, 2)})
    monkeypatch.setattr(command, 'machine', lambda: {'device': 'this one'})
    out = tmp_path / 'new' / 'criterion.json'
    out.parent.mkdir()
    out.write_text('{"subject": "criterion", "rows": []}')  # an earlier one, which is replaced
    command.benchmark(['criterion', '--growth', '--rounds', '1', '--out', str(out)])
    report = json.loads(out.read_text())
    assert report['subject'] == 'criterion' and report['machine'] == {'device': 'this one'} and report['rounds'] == 1
    assert [(row['varied'], row['objects'], row['layers']) for row in report['rows']] == [
        ('standard', 2, 2),
        ('objects', 1, 2),
        ('objects', 3, 2),
        ('layers', 2, 1),
        ('layers', 2, 2),
    ]
    assert all(row['median_s'] > 0 and row['operations'] > 0 for row in report['rows'])
    for kind in ('png', 'svg', 'csv', 'json'):
        assert (out.parent / f'criterion-growth.{kind}').is_file()
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split()[:4] == ['model', 'varied', 'images', 'objects'] and len(printed) == 1 + 5 + 2
    assert printed[0].split()[-2:] == ['median', 'operations']  # in ms here; no ratio, as there is no reference


def test_every_model_that_is_named_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    measured: dict[str, list[str]] = {'training': [], 'leave_one_out': [], 'criterion': []}
    for name, models in measured.items():
        monkeypatch.setattr(
            command, name, lambda reference, *, model_name, models=models, **_: models.append(model_name) or []
        )
    for subject in ('training', 'leave-one-out'):
        command.benchmark([subject, '--models', 'R18', 'D-FINE-N', '--batches', '1', '2'])
    assert measured['training'] == measured['leave_one_out'] == ['R18', 'R18', 'D-FINE-N', 'D-FINE-N']
    command.benchmark(['criterion', '--models', 'R18', 'R50', 'D-FINE-N', 'DEIM-S'])
    assert measured['criterion'] == ['R18', 'D-FINE-N', 'DEIM-S'], 'R18 and R50 have one criterion'
    with pytest.raises(InputError, match='--growth draws one criterion, and --models R18 D-FINE-N have several'):
        command.benchmark(['criterion', '--growth', '--models', 'R18', 'D-FINE-N'])


def test_a_row_for_each_model_and_way_of_prediction(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process; that a side has one of its own is held by test_training_case.py."""
    sent = lambda name, reference, begin: nullcontext(pickle.loads(pickle.dumps(begin))(reference))  # noqa: E731
    monkeypatch.setattr(inference, 'process', sent)
    monkeypatch.setattr(inference, 'ask', lambda side, run, name: side[name]())
    settings = dict(model_names=['DEIMv2-Atto', 'ECDet-S'], batches=[2], side=64, rounds=1, compiled=False)
    rows = inference.inference(None, **settings)
    ways = ['as built', 'prepared', 'prepared, bfloat16']
    assert [(row['model'], row['side']) for row in rows] == [(m, way) for m in settings['model_names'] for way in ways]
    assert all(row['median_s'] > 0 and row['batch'] == 2 for row in rows)


def test_the_growth_chart_draws_what_was_measured() -> None:
    rows = [
        {'varied': 'objects', 'objects': n, 'side': side, 'median_s': n * k, 'low_s': n, 'high_s': 3 * n}
        for side, k in (('ours', 1), ("the authors'", 2))
        for n in (1, 10)
    ]
    [panel] = [axes for axes in growth_chart('growth', rows).figure.axes if axes.get_visible()]
    drawn = {line.get_label(): (line.get_xdata().tolist(), line.get_ydata().tolist()) for line in panel.lines}
    assert drawn == {'ours': ([1, 10], [1000, 10000]), "the authors'": ([1, 10], [2000, 20000])}


def test_bad_options_are_refused(tmp_path: Path) -> None:
    for option, value, least in (
        ('--rounds', '0', 1),
        ('--side', '-5', 32),
        ('--batches', '0', 1),
        ('--threads', '0', 1),
    ):
        with pytest.raises(InputError, match=f'{option} {value}: name at least {least}'):
            command.benchmark(['criterion', option, value])
    with pytest.raises(InputError, match='--prediction times ours in single precision alone; leave --bfloat16'):
        command.benchmark(['leave-one-out', '--prediction', '--bfloat16'])
    (tmp_path / 'notes.txt').write_text('of a person')
    for out in (tmp_path, tmp_path / 'notes.txt'):
        with pytest.raises(
            InputError, match=f'--out {out} is there, and is no report of `iouquery benchmark`; name another'
        ):
            command.benchmark(['criterion', '--out', str(out)])
    with pytest.raises(
        InputError, match=f'cannot write to the folder {tmp_path / "notes.txt"}: .*; name another with --out'
    ):
        command.benchmark(['criterion', '--out', str(tmp_path / 'notes.txt' / 'x.json')])
    assert (tmp_path / 'notes.txt').read_text() == 'of a person'
    with pytest.raises(
        InputError, match='--reference has one family of models, and --models R18 DEIM-S are of several'
    ):
        command.benchmark(['inference', '--models', 'R18', 'DEIM-S', '--reference', 'somewhere'])


def test_the_peak_of_tensors_is_what_lives_at_a_time() -> None:
    """10,000 numbers of 4 bytes each: three at once, then one more after two have gone."""

    def call() -> None:
        a, b, c = (torch.empty(10_000) for _ in range(3))
        del a, b
        d = torch.empty(10_000)
        del c, d

    assert peak_of_tensors(call) == pytest.approx(3 * 40_000, rel=0.05)  # and torch's bookkeeping


def test_compiling_without_a_compiler_is_refused_before_anything_is_timed() -> None:
    none, message = {'cpp.cxx': ('/no/such/compiler',)}, r'^--compile: .*compiler.*; torch compiles by a C\+\+ compiler'
    with inductor.patch(none), pytest.raises(InputError, match=message):
        command.benchmark(['inference', '--compile', '--depths', '18', '--side', '64', '--rounds', '1'])
