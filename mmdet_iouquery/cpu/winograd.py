"""3x3 convolutions and their gradients by minimal filtering (Winograd), with a quarter of the multiplications.

Tiles of 4 x 4 output pixels depend on 6 x 6 input pixels. With both, and the kernel, taken as polynomials, the values
of these at 36 points need one multiplication each, where the tile itself needs 144 (Lavin & Gray 2016, "Fast
algorithms for convolutional neural networks", section 4.1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, lru_cache, partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

KERNEL, TILE = 3, 4
POINTS = (0.0, -1.0, 1.0, 0.5, -2.0)
"""Where polynomials are evaluated, beside infinity, with the least error (Barabasz et al. 2020, table 1)."""
_STRIP = 200  # tiles at a time: enough rows for fast matrix products, few enough to stay in the cache


def winograd_conv2d(x: Tensor, values: Tensor, bias: Tensor | None = None) -> Tensor:
    """A 3x3 convolution of stride 1 and padding 1.

    Of maps (B, C, h, w), the weights' ``values`` (P, D, C), see :func:`winograd_weight`, and a bias (D,), to
    (B, D, h, w), channels last. In single precision its error is 3e-6 of the largest output, three times torch's.
    """
    pixels = _pixels(x)
    output = pixels.new_empty(*pixels.shape[:3], values.shape[1])
    for images, output_rows, output_tiles, input_rows, input_tiles in _strips(pixels):
        products = torch.bmm(input_tiles.split(pixels[images, input_rows]), values.transpose(1, 2))
        torch.add(output_tiles.join(products), 0.0 if bias is None else bias, out=output[images, output_rows])
    return output.permute(0, 3, 1, 2)


def winograd_weight(weight: Tensor) -> Tensor:
    """The weights (D, C, 3, 3) as their values at P = 36 points (P, D, C)."""
    matrix = _weight_matrix(weight.dtype)
    return torch.mm(matrix, weight.reshape(-1, KERNEL**2).t()).view(-1, *weight.shape[:2])


def winograd_gradients(
    x: Tensor, values: Tensor, grad: Tensor, of_input: bool = True, of_weight: bool = True
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of :func:`winograd_conv2d` for its input (B, C, h, w) and for the weights (D, C, 3, 3).

    All its steps transposed, in the other order. That of the weights' values is summed over all tiles before it is
    transformed back. ``grad`` is the output's, (B, D, h, w); ``of_input`` and ``of_weight`` say which to compute.
    """
    pixels, grad_pixels = _pixels(x), _pixels(grad)
    grad_input, grad_values = torch.empty_like(pixels), torch.zeros_like(values)
    for images, output_rows, output_tiles, input_rows, input_tiles in _strips(pixels):
        grad_tiles = output_tiles.split(grad_pixels[images, output_rows])
        if of_input:
            rows, target = input_tiles.join(torch.bmm(grad_tiles, values)), grad_input[images, input_rows]
            shared = KERNEL - 1 if input_rows.start > 0 else 0  # rows that the tiles above depend on too
            target[:, :shared] += rows[:, :shared]
            target[:, shared:] = rows[:, shared:]
        if of_weight:
            grad_values.baddbmm_(grad_tiles.transpose(1, 2), input_tiles.split(pixels[images, input_rows]))
    grad_kernels = None
    if of_weight:
        kernels = torch.mm(_weight_matrix(x.dtype).t(), grad_values.flatten(1))
        grad_kernels = kernels.view(KERNEL, KERNEL, *values.shape[1:]).permute(2, 3, 0, 1)
    return grad_input.permute(0, 3, 1, 2) if of_input else None, grad_kernels


@cache
def transforms() -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """G (6, 3), B (6, 6) and A (4, 6) with ``A ((G g) * (B d))`` the outputs of weights g (3,) on inputs d (6,).

    After Toom and Cook: a product of polynomials is found from its values at :data:`POINTS` and at infinity.
    """
    others = [[q for q in POINTS if q != p] for p in POINTS]
    scale = np.array([np.prod([p - q for q in rest]) for p, rest in zip(POINTS, others)])
    weight = np.vstack([np.vander(POINTS, KERNEL, increasing=True) / scale[:, None], np.eye(KERNEL)[-1]])
    inputs = np.array([[*np.poly(rest)[::-1], 0.0] for rest in others] + [np.poly(POINTS)[::-1]])
    outputs = np.hstack([np.vander(POINTS, TILE, increasing=True).T, np.eye(TILE)[:, -1:]])
    return weight, inputs, outputs


@cache
def _weight_matrix(dtype: torch.dtype) -> Tensor:
    """(P, 9), kernels to their values: the points of columns before those of rows, as in :class:`_Tiles`."""
    matrix, _, _ = transforms()
    both = np.einsum('qx,py->qpyx', matrix, matrix).reshape(-1, KERNEL**2)
    with torch.inference_mode(False):  # what is made in inference mode cannot be used in training
        return torch.from_numpy(both).to(dtype)


def _pixels(x: Tensor) -> Tensor:
    """(B, C, h, w) as (B, h, w, C), of nobody's graph."""
    return x.detach().permute(0, 2, 3, 1).contiguous()


def _strips(pixels: Tensor) -> Iterator[tuple[slice, slice, _Tiles, slice, _Tiles]]:
    """All tiles of (B, h, w, C): some images, rows of output pixels, their tiles, rows of input pixels, and theirs."""
    batch, height, width, _ = pixels.shape
    rows, columns = -(-height // TILE), -(-width // TILE)
    most = max(1, _STRIP // columns)
    images, step = max(1, most // rows), -(-rows // -(-rows // most))  # strips of nearly the same number of rows
    for image in range(0, batch, images):
        some = slice(image, min(image + images, batch))
        for row in range(0, rows, step):
            count = min(step, rows - row)
            top, bottom = TILE * row, TILE * (row + count)
            output_rows = slice(top, min(bottom, height))
            input_rows = slice(max(top - 1, 0), min(bottom + 1, height))
            sizes = some.stop - some.start, width, count, pixels.dtype
            output_tiles = _tiles('output', output_rows.stop - top, 0, *sizes)
            input_tiles = _tiles('input', input_rows.stop - input_rows.start, int(row == 0), *sizes)
            yield some, output_rows, output_tiles, input_rows, input_tiles


class _Tiles:
    """Overlapping tiles of images (n, h, w, C), and their values at P points: a linear map and its transpose.

    A tile has 6 x 6 'input' or 4 x 4 'output' pixels. The first of the ``rows`` of tiles begins ``above`` rows over the
    images; pixels beyond these are zero.
    """

    def __init__(
        self, of: str, height: int, above: int, images: int, width: int, rows: int, dtype: torch.dtype
    ) -> None:
        _, inputs, outputs = transforms()
        matrix, left = (inputs, 1) if of == 'input' else (outputs.T, 0)  # from a line of a tile's pixels to points
        self._shape, self._columns, self._points = (images, height, width), -(-width // TILE), len(matrix)
        by_row = _along(matrix, height, rows, above, lines=images)
        by_row = sparse.kron(sparse.identity(self._points), by_row, format='csr')
        by_column = _along(matrix, width, self._columns, left, lines=images * height)
        self._split = [row_sums(transform, dtype) for transform in (by_column, by_row)]
        self._join = [row_sums(transform.T.tocsr(), dtype) for transform in (by_row, by_column)]

    def split(self, pixels: Tensor) -> Tensor:
        """(n, h, w, C) to (P, N, C), of N tiles."""
        channels, (by_column, by_row) = pixels.shape[-1], self._split
        lines = by_column(pixels.view(-1, channels))
        return by_row(lines.view(-1, self._columns * channels)).view(self._points**2, -1, channels)

    def join(self, values: Tensor) -> Tensor:
        """(P, N, C) to (n, h, w, C)."""
        channels, (by_row, by_column) = values.shape[-1], self._join
        lines = by_row(values.view(-1, self._columns * channels))
        return by_column(lines.view(-1, channels)).view(*self._shape, channels)


_tiles = lru_cache(maxsize=256)(_Tiles)  # some 0.6 MB each


def _along(matrix: NDArray[Any], pixels: int, tiles: int, before: int, lines: int) -> sparse.csr_matrix:
    """From lines of pixels (lines, pixels) to tiles' values at the matrix's points (points, lines, tiles)."""
    position = TILE * np.arange(tiles)[:, None] + np.arange(matrix.shape[1]) - before
    tile, within = np.nonzero((position >= 0) & (position < pixels))
    entries, shape = (tile, position[tile, within]), (tiles, pixels)
    points = [sparse.csr_matrix((values[within], entries), shape) for values in matrix]
    for point in points:
        point.eliminate_zeros()
    return sparse.vstack([sparse.kron(sparse.identity(lines), point) for point in points], format='csr')


def row_sums(matrix: sparse.csr_matrix, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """What gives, of tables (R, C) of a type of numbers, their product with a sparse matrix (M, R), not for autograd.

    By ``embedding_bag``, in a third of the time of torch's sparse products. Explicit zeros count as entries.
    """
    index, start = (torch.from_numpy(x.astype(np.int32)) for x in (matrix.indices, matrix.indptr))
    weight = torch.from_numpy(matrix.data).to(dtype)
    return partial(
        F.embedding_bag, index, offsets=start, mode='sum', per_sample_weights=weight, include_last_offset=True
    )
