"""Keep tables that depend on shapes and the device alone."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

import torch

from .graph_capture import is_captured


class TableCache:
    """Remembers what a function made for the last few keys.

    For tensors that are no function of weights or images, as anchors and position codes: making them anew costs some
    twenty operations a call. A copy of the cache, and what is unpickled, starts empty. Where a graph is made
    (``torch.compile``, ``torch.export``, ``torch.jit.trace``) nothing is remembered, as tables belong into it there.

    Args:
        size: number of keys; the least recently used goes first.
    """

    def __init__(self, size: int = 16) -> None:
        self.size = size
        self._tables: OrderedDict[Hashable, Any] = OrderedDict()

    def __call__(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """What ``make`` gave for ``key``."""
        if is_captured():
            return make()
        if key not in self._tables:
            with torch.inference_mode(False):  # a table made in inference mode would be no good in training
                self._tables[key] = make()
            if len(self._tables) > self.size:
                self._tables.popitem(last=False)
        self._tables.move_to_end(key)
        return self._tables[key]

    def __deepcopy__(self, memo: dict[int, Any]) -> TableCache:
        return TableCache(self.size)

    def __reduce__(self) -> tuple[Any, ...]:
        return TableCache, (self.size,)
