"""What the C library, and Python's own collector, do with memory that is free."""

from __future__ import annotations

import ctypes
import gc
import platform
from collections.abc import Iterator
from contextlib import contextmanager

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # options of mallopt, in glibc's malloc.h
_LARGEST_OF_HEAP = 33_000_000  # bytes, of 2^25


def keep_freed_memory() -> bool:
    """Have this process keep what it frees, for what it allocates next; it cannot be undone.

    By default glibc gives large blocks, and the free end of its heap, back to the system at once. Every training step
    then gets hundreds of megabytes anew, page by page, each page zeroed by the system first. Peak memory grows by a few
    percent: what is free between blocks in use stays with the process. See mallopt(3).

    Returns:
        Whether the C library is glibc and did so; with any other, nothing is changed.
    """
    if platform.libc_ver()[0] != 'glibc':
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all([mallopt(_TRIM_THRESHOLD, -1), mallopt(_MMAP_MAX, 0)])


def take_maps_from_heap() -> None:
    """Have glibc take blocks of up to 32 MB from its heap, and give the end of that back only where it has 64 MB free.

    It does so by itself once a block of that size was freed: both limits begin at 128 KB and follow the largest block
    seen, see M_MMAP_THRESHOLD in mallopt(3). A small model frees none so large, and its maps come from the system
    anew for every image, page by page.
    """
    import torch

    torch.empty(_LARGEST_OF_HEAP, dtype=torch.uint8)


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Python does not look for cycles of objects that are free, where nearly all that is made stays."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()
