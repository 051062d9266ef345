"""A count that the processes of a data loader keep together."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch.utils.data import get_worker_info

_PROCESSES = 256  # the main process and its workers; each counts in a place of its own
_FILES = 4096  # names that are told apart; further ones are counted only


class SkipLedger:
    """How often something was left out, and what for the first time, over the main process and all its workers.

    The numbers lie in shared memory: workers, forked or spawned, write what the main process reads. A pickled or deep
    copy counts for itself from then on; a shallow one shares the count.
    """

    def __init__(self) -> None:
        self._counts = torch.zeros(_PROCESSES, dtype=torch.int64).share_memory_()
        self._names = torch.zeros(_FILES, dtype=torch.int64).share_memory_()

    def __setstate__(self, state: dict[str, Any]) -> None:
        # on its way to a spawned worker a tensor stays shared; every other copy needs memory of its own to share
        self.__dict__.update({name: tensor.share_memory_() for name, tensor in state.items()})

    @property
    def total(self) -> int:
        """How often something was left out."""
        return int(self._counts.sum())

    @property
    def files(self) -> int:
        """How many different files that were, up to 4096."""
        return int((self._names != 0).sum())

    def add(self, name: str) -> bool:
        """Count one, and say whether this file is a new one (no, when there were 4096 before)."""
        worker = get_worker_info()
        self._counts[0 if worker is None else 1 + worker.id % (_PROCESSES - 1)] += 1
        code = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), 'little', signed=True) or 1
        for step in range(_FILES):  # open addressing: the first place that is free or the name's own
            slot = (code + step) % _FILES
            stored = int(self._names[slot])
            if stored == code:
                return False
            if stored == 0:
                self._names[slot] = code
                return True
        return False
