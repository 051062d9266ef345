"""Weights and inputs that anyone can rebuild from a name: no checkpoint has to be shipped.

``tensor(name, shape)`` gives the same float32 array on every machine, so a reference model and this project can be
filled with equal weights, run on equal inputs, and compared number by number.
"""

import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray


def tensor(name: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """The weight called ``name`` of shape ``shape`` (float32; int64 zero for ``num_batches_tracked``)."""
    rng = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
    leaf = name.rsplit('.', 1)[-1]
    if leaf == 'num_batches_tracked':
        return np.zeros(shape, np.int64)
    if leaf == 'running_var':
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    x = rng.standard_normal(shape).astype(np.float32)
    if len(shape) >= 2:
        return x * np.float32(1.0 / np.sqrt(np.prod(shape[1:])))
    if leaf == 'weight':
        return np.float32(1.0) + np.float32(0.1) * x
    return np.float32(0.1) * x


def weight(name: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """As ``tensor``, but what multiplies activations is near 1.

    That is ``scale`` of RMSNorm and of learnable affine blocks, and LayerScale's ``gamma``. Goldens named in README.md
    as filled by ``weight`` use this; the older ones use ``tensor``.
    """
    if name.rsplit('.', 1)[-1] in ('scale', 'gamma'):
        return np.float32(1.0) + tensor(name, shape)
    return tensor(name, shape)


def image(name: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """A smooth-plus-noise input of shape (batch, 3, height, width), float32, roughly in [0, 1]."""
    rng = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
    b, c, h, w = shape
    coarse = rng.uniform(0, 1, (b, c, (h + 31) // 32, (w + 31) // 32))
    up = coarse.repeat(32, 2).repeat(32, 3)[:, :, :h, :w]
    return (0.8 * up + 0.2 * rng.uniform(0, 1, shape)).astype(np.float32)


def targets(name: str, batch: int, counts: list[int], num_classes: int) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Per image (labels int64 (n,), boxes float32 (n, 4) as normalised cx, cy, w, h)."""
    rng = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
    out = []
    for n in counts[:batch]:
        wh = rng.uniform(0.05, 0.5, (n, 2))
        c = rng.uniform(0, 1, (n, 2)) * (1 - wh) + wh / 2
        out.append((rng.integers(0, num_classes, n), np.concatenate([c, wh], 1).astype(np.float32)))
    return out
