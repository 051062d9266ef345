"""The training benchmark: each side in a process of its own, with its memory. No time is measured."""

from __future__ import annotations

import os

import pytest
import torch

from mmdet_iouquery.apps.benchmark import side_processes, training
from mmdet_iouquery.apps.benchmark.models import Batch, detector
from mmdet_iouquery.apps.benchmark.reference import NAME
from mmdet_iouquery.apps.benchmark.training import AUTOCAST, GIVEN_BACK, KEPT, OURS, our_loss


def test_a_side_is_measured_in_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, '_names', lambda with_reference: [OURS])
    [row] = training.training(None, model_name='R18', batch=1, side=64, objects=2, rounds=1)
    assert row['side'] == OURS and row['ratio'] is None and row['median_s'] > 0 and side_processes.held == {}
    # 20 million weights and their gradients are among the tensors, and all tensors in the process
    weights_mb = 20e6 * 4 / training.MB
    assert 2 * weights_mb < row['tensors_mb'] < row['process_mb']
    assert weights_mb < row['grown_mb'] < row['process_mb'] - weights_mb


@pytest.mark.parametrize(
    ('name', 'kept'),
    [(NAME, 0), (NAME + KEPT, 1), (NAME + AUTOCAST, 0), (OURS, 1), (OURS + GIVEN_BACK, 0), (OURS + AUTOCAST, 1)],
)
def test_freed_memory_is_kept_where_the_side_says_so(name: str, kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    monkeypatch.setattr(training, 'keep_freed_memory', lambda: seen.append(os.getpid()))
    monkeypatch.setattr(training, '_step', lambda name, reference: name)
    assert training._begin(name, None)['step'] == name and len(seen) == kept


@pytest.mark.skipif(torch.cuda.is_available(), reason='where there is a GPU, the CPU is not measured')
def test_both_sides_are_measured_either_way() -> None:
    ours = [OURS, OURS + GIVEN_BACK, OURS + AUTOCAST]
    assert training._names(with_reference=False) == ours
    assert training._names(with_reference=True) == [NAME, NAME + KEPT, NAME + AUTOCAST, *ours]


def test_a_student_learns_from_a_given_map_and_no_teacher_is_built() -> None:
    batch, model = Batch(1, 64, 2, torch.device('cpu')), detector('RT-DETRv4-S').train()
    torch.manual_seed(0)
    losses = model(batch.images, batch.samples(), mode='loss')
    assert losses['loss_distill'].item() == pytest.approx(5.0, abs=2.5)  # 5 (1 - cosine), of random maps about 5
    torch.manual_seed(0)
    assert our_loss(model, batch).item() == pytest.approx(sum(losses.values()).item())
