"""Memory over many steps with ever other numbers of boxes and sizes."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest
import torch
from helpers import random_batch, small_detector

pytestmark = pytest.mark.skipif(os.environ.get('LONG_TESTS') != '1', reason='takes minutes: make test-long')
STEPS, SETTLED = 200, 50


def resident_mb() -> float:
    """Memory of this process, in 1e6 bytes."""
    pages = int(Path('/proc/self/statm').read_text().split()[1])
    return pages * os.sysconf('SC_PAGE_SIZE') / 1e6


@pytest.mark.skipif(not Path('/proc/self/statm').is_file(), reason="reads Linux's /proc")
def test_memory_is_flat_over_200_steps() -> None:
    """After the first 50 steps, which meet every size, it grows by less than 30 MB."""
    model = small_detector().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    resident = []
    for step in range(STEPS):
        size = (64, 96, 128)[step % 3]
        images, samples = random_batch([step % 17, 5 * (step % 7)], size, size)
        loss = sum(model.loss(images, samples).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        gc.collect()
        resident.append(resident_mb())
    first, last = max(resident[SETTLED - 20 : SETTLED]), max(resident[-20:])
    print(f'{first:.0f} MB by step {SETTLED}, {last:.0f} MB at the end')
    assert last - first < 30
