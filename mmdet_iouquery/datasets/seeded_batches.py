"""Random augmentation that depends on a sample's place in the run, and on nothing that happened before."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch
from mmdet.registry import DATA_SAMPLERS
from mmengine.dist import get_rank
from torch.utils.data import BatchSampler, Sampler


def seed_of(*numbers: int) -> int:
    """A seed in [0, 2 ** 32) of some whole numbers; other numbers, or another order, give an unrelated one."""
    return int.from_bytes(hashlib.blake2b(repr(numbers).encode(), digest_size=4).digest(), 'little')


class SeededBatch(list[int]):
    """Indices of one batch. Going through them seeds Python's, NumPy's and torch's generators anew before each.

    A data loader goes through a batch in the process that loads it, and loads each sample before it asks for the next
    index. So every sample is augmented with random numbers of its own, whichever process that is and whatever it has
    loaded before.

    Args:
        indices: into the data set.
        seed_numbers: what the samples' seeds are made of, with each one's number in the batch.
    """

    def __init__(self, indices: Iterable[int], seed_numbers: tuple[int, ...]) -> None:
        super().__init__(indices)
        self.seed_numbers = seed_numbers

    def __iter__(self) -> Iterator[int]:
        for number, index in enumerate(super().__iter__()):
            seed = seed_of(*self.seed_numbers, number)
            random.seed(seed)
            np.random.seed(seed)
            torch.default_generator.manual_seed(seed)
            yield index

    def __reduce__(self) -> tuple[Any, ...]:
        """On its way to a worker it is not gone through: that would seed the process that trains, between two draws."""
        return type(self), (self[:], self.seed_numbers)


@DATA_SAMPLERS.register_module()
class SeededBatchSampler(BatchSampler):
    """torch's ``BatchSampler`` whose batches are seeded by the sampler's seed, the epoch, the process and their number.

    With mmengine's own, the random numbers of an augmentation follow from all that the same worker has loaded since it
    started; a run that was interrupted then goes on with others. Here they are the same, and an epoch can be entered in
    its middle without loading what comes before.

    Args:
        sampler: gives the indices, and has a ``seed`` and, unless it never ends, an ``epoch``, as mmengine's samplers.
        batch_size: indices a batch.
        drop_last: leave out a last batch that is not full.
    """

    def __init__(self, sampler: Sampler[int], batch_size: int, drop_last: bool = False) -> None:
        super().__init__(sampler, batch_size, drop_last)
        self._skipped = 0

    def skip_batches(self, number: int) -> None:
        """Let the next iteration, and that alone, begin with batch ``number`` of the epoch."""
        self._skipped = number

    def __iter__(self) -> Iterator[list[int]]:
        first, self._skipped = self._skipped, 0
        seed_parts = (getattr(self.sampler, 'seed', 0), getattr(self.sampler, 'epoch', 0), get_rank())
        indices = islice(self.sampler, first * self.batch_size, None)
        number = first
        while batch := list(islice(indices, self.batch_size)):
            if len(batch) < self.batch_size and self.drop_last:
                return
            yield SeededBatch(batch, (*seed_parts, number))
            number += 1
