"""3x3 convolutions and their gradients by minimal filtering (Winograd), with a quarter of the multiplications.

Squares of 4 x 4 output pixels depend on 6 x 6 input pixels. With both, and the kernel, taken as polynomials, the values
of these at 36 points need one multiplication each, where the square itself needs 144 (Lavin & Gray 2016, "Fast
algorithms for convolutional neural networks", section 4.1). Squares of 2 x 2 need 16 for 36, and fewer values of the
kernel: of use where there are few squares for many channels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import cache, cached_property, lru_cache
from typing import NamedTuple

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from .row_sums import RowSums

KERNEL = 3
POINTS = {
    2: (Fraction(0), Fraction(-1), Fraction(1)),
    4: (Fraction(0), Fraction(-1), Fraction(1), Fraction(1, 2), Fraction(-2)),
}
"""Where polynomials are evaluated, by the side of the squares of output pixels that are computed at once. These lose
the fewest digits (Barabasz et al. 2020, "Error analysis and improving the accuracy of Winograd convolution for deep
neural networks", table 1)."""
_PIECE = 200  # squares at a time: enough rows for fast matrix products, few enough to stay in the cache

Matrix = list[list[Fraction]]


def winograd_conv2d(x: Tensor, values: Tensor, bias: Tensor | None = None) -> Tensor:
    """A 3x3 convolution of stride 1 and padding 1.

    In single precision, the error from squares of 4 x 4 is some three times that of the convolution itself, 3e-6 of the
    largest output; from 2 x 2 it is no larger than that.

    Args:
        x: (B, C, h, w).
        values: the weights, by :func:`winograd_weight`, (P, D, C).
        bias: (D,).

    Returns:
        (B, D, h, w), channels last.
    """
    pixels = _pixels(x)
    out = pixels.new_empty(*pixels.shape[:3], values.shape[1])
    for piece in _pieces(pixels, _side(values)):
        of_input = piece.of_input.apart(pixels[piece.images, piece.input])
        found = piece.of_output.together(torch.bmm(of_input, values.transpose(1, 2)))
        place = out[piece.images, piece.output]
        if bias is None:
            place.copy_(found)
        else:
            torch.add(found, bias, out=place)
    return out.permute(0, 3, 1, 2)


def winograd_weight(weight: Tensor, side: int = 4) -> Tensor:
    """The weights (D, C, 3, 3) as their values at P points (P, D, C): 36 for squares of side 4, 16 for side 2."""
    matrix = _of_weight(side, weight.dtype)
    return torch.mm(matrix, weight.reshape(-1, KERNEL**2).t()).view(-1, *weight.shape[:2])


def winograd_gradients(
    x: Tensor, values: Tensor, grad: Tensor, of_input: bool = True, of_weight: bool = True
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of :func:`winograd_conv2d` for its input (B, C, h, w) and for the weights (D, C, 3, 3).

    All its steps transposed, in the other order. The gradient of the weights' values is summed over all squares before
    it is transformed back.

    Args:
        x: the input.
        values: the weights, by :func:`winograd_weight`, (P, D, C).
        grad: the gradient of the output, (B, D, h, w).
        of_input: whether to compute the one, else ``None``.
        of_weight: whether to compute the other, else ``None``.
    """
    pixels, grad_pixels, side = _pixels(x), _pixels(grad), _side(values)
    grad_input = torch.empty_like(pixels)
    grad_values = torch.empty_like(values) if len(x) > 0 else torch.zeros_like(values)
    for number, piece in enumerate(_pieces(pixels, side)):
        of_output = piece.of_output.apart(grad_pixels[piece.images, piece.output])
        if of_input:
            found, place = piece.of_input.together(torch.bmm(of_output, values)), grad_input[piece.images, piece.input]
            shared = KERNEL - 1 if piece.input.start > 0 else 0  # rows that the squares above depend on too
            place[:, :shared] += found[:, :shared]
            place[:, shared:] = found[:, shared:]
        if of_weight:
            squares = piece.of_input.apart(pixels[piece.images, piece.input])
            grad_values.baddbmm_(of_output.transpose(1, 2), squares, beta=min(number, 1))  # the first overwrites
    return grad_input.permute(0, 3, 1, 2) if of_input else None, _of_values(grad_values, side) if of_weight else None


def transforms(side: int) -> tuple[Matrix, Matrix, Matrix]:
    """G (n, 3), B (n, n) and A (side, n) with ``A ((G g) * (B d))`` the outputs of weights g (3,) on n inputs d.

    After Toom and Cook: a product of polynomials is found from its values at :data:`POINTS` and at infinity. Rational,
    so exact.
    """
    points = POINTS[side]
    scale = [_product([p - q for q in points if q != p]) for p in points]
    of_weight = [[p**k / s for k in range(KERNEL)] for p, s in zip(points, scale)] + [[*[Fraction(0)] * 2, Fraction(1)]]
    of_input = [_coefficients([q for q in points if q != p], len(points)) for p in points]
    of_input.append(_coefficients(points, len(points)))
    of_output = [[*(p**k for p in points), Fraction(int(k == side - 1))] for k in range(side)]
    return of_weight, of_input, of_output


def _of_values(grad: Tensor, side: int) -> Tensor:
    """The transpose of :func:`winograd_weight`."""
    found = torch.mm(_of_weight(side, grad.dtype).t(), grad.flatten(1))
    return found.view(KERNEL, KERNEL, *grad.shape[1:]).permute(2, 3, 0, 1)


def _pixels(x: Tensor) -> Tensor:
    """(B, C, h, w) as (B, h, w, C), of nobody's graph."""
    return x.detach().permute(0, 2, 3, 1).contiguous()


def _side(values: Tensor) -> int:
    """That of the squares of output pixels which weights at so many points are for."""
    return math.isqrt(len(values)) - KERNEL + 1


@cache
def _of_weight(side: int, dtype: torch.dtype) -> Tensor:
    """(P, 9), kernels to their values: the points of columns before those of rows, as in :class:`_Squares`."""
    matrix = _array(transforms(side)[0])
    both = np.einsum('qx,py->qpyx', matrix, matrix).reshape(-1, KERNEL**2)
    with torch.inference_mode(False):  # what is made in inference mode cannot be used in training
        return torch.from_numpy(both).to(dtype)


def _array(matrix: Matrix) -> np.ndarray:
    return np.array(matrix, dtype=np.float64)


class _Piece(NamedTuple):
    """Some rows of squares of some images."""

    images: slice
    output: slice
    """Rows of output pixels."""
    input: slice
    """Rows of the input pixels that they depend on."""
    of_output: _Squares
    of_input: _Squares


def _pieces(pixels: Tensor, side: int) -> Iterator[_Piece]:
    """All squares of (B, h, w, C)."""
    batch, height, width, _ = pixels.shape
    rows, columns = -(-height // side), -(-width // side)
    most = max(1, _PIECE // columns)
    images, step = max(1, most // rows), -(-rows // -(-rows // most))  # strips of nearly the same number of rows
    for image in range(0, batch, images):
        for row in range(0, rows, step):
            some, count = slice(image, min(image + images, batch)), min(step, rows - row)
            top, bottom = side * row, side * (row + count)
            output, input = slice(top, min(bottom, height)), slice(max(top - 1, 0), min(bottom + 1, height))
            sizes = some.stop - some.start, width, count
            yield _Piece(
                some,
                output,
                input,
                _squares('output', side, output.stop - output.start, 0, *sizes, pixels.dtype),
                _squares('input', side, input.stop - input.start, int(row == 0), *sizes, pixels.dtype),
            )


@lru_cache(maxsize=256)  # some 0.3 MB each
def _squares(
    of: str, side: int, height: int, above: int, images: int, width: int, rows: int, dtype: torch.dtype
) -> _Squares:
    _, of_input, of_output = (_array(matrix) for matrix in transforms(side))
    matrix, left = (of_input, 1) if of == 'input' else (of_output.T, 0)
    return _Squares(matrix, (images, height, width), (rows, -(-width // side)), side, (above, left), dtype)


class _Squares:
    """Overlapping squares of images (n, h, w, C), and their values at P points: a linear map and its transpose.

    Args:
        matrix: (p, k), from a line of a square's k pixels to p points, P = p * p.
        shape: n, h and w.
        count: rows and columns of squares.
        step: pixels from one to the next.
        padding: rows above the images, and columns on their left, at which the first square begins. Pixels beyond the
            images are zero.
        dtype: of the images.
    """

    def __init__(
        self,
        matrix: np.ndarray,
        shape: tuple[int, int, int],
        count: tuple[int, int],
        step: int,
        padding: tuple[int, int],
        dtype: torch.dtype,
    ) -> None:
        self._matrix, self._shape, self._count, self._step = matrix, shape, count, step
        self._padding, self._dtype = padding, dtype

    def apart(self, pixels: Tensor) -> Tensor:
        """(n, h, w, C) to (P, N, C), of N squares."""
        channels, (by_column, by_row) = pixels.shape[-1], self._apart
        lines = by_column(pixels.view(-1, channels))
        return by_row(lines.view(-1, self._count[1] * channels)).view(len(self._matrix) ** 2, -1, channels)

    def together(self, values: Tensor) -> Tensor:
        """(P, N, C) to (n, h, w, C)."""
        channels, (by_column, by_row) = values.shape[-1], self._together
        lines = by_row(values.view(-1, self._count[1] * channels))
        return by_column(lines.view(-1, channels)).view(*self._shape, channels)

    @cached_property
    def _apart(self) -> tuple[RowSums, RowSums]:
        by_column, by_row = self._both()
        return RowSums(by_column, self._dtype), RowSums(by_row, self._dtype)

    @cached_property
    def _together(self) -> tuple[RowSums, RowSums]:
        by_column, by_row = (matrix.T.tocsr() for matrix in self._both())
        return RowSums(by_column, self._dtype), RowSums(by_row, self._dtype)

    def _both(self) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
        """From pixels to points of the columns of squares, and from each of these to points of the rows."""
        (images, height, width), (rows, columns), (above, left) = self._shape, self._count, self._padding
        by_column = _along(self._matrix, width, columns, self._step, left, lines=images * height)
        by_row = _along(self._matrix, height, rows, self._step, above, lines=images)
        return by_column, sparse.kron(sparse.identity(len(self._matrix)), by_row, format='csr')


def _along(matrix: np.ndarray, pixels: int, squares: int, step: int, before: int, lines: int) -> sparse.csr_matrix:
    """From lines of pixels (lines, pixels) to squares' values at the matrix's points (points, lines, squares)."""
    place = step * np.arange(squares)[:, None] + np.arange(matrix.shape[1]) - before
    square, within = np.nonzero((place >= 0) & (place < pixels))
    where, shape = (square, place[square, within]), (squares, pixels)
    one = [sparse.csr_matrix((values[within], where), shape) for values in matrix]
    for values in one:
        values.eliminate_zeros()
    return sparse.vstack([sparse.kron(sparse.identity(lines), values) for values in one], format='csr')


def _product(numbers: Sequence[Fraction]) -> Fraction:
    product = Fraction(1)
    for number in numbers:
        product *= number
    return product


def _coefficients(roots: Sequence[Fraction], degree: int) -> list[Fraction]:
    """Of the polynomial with these roots, constant first, up to a degree."""
    found = [Fraction(1)]
    for root in roots:
        found = [low - root * same for low, same in zip([Fraction(0), *found], [*found, Fraction(0)])]
    return found + [Fraction(0)] * (degree + 1 - len(found))
