"""3x3 convolutions and their gradients by minimal filtering (Winograd), as a quarter of the multiplications."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor

from .windows import windows

OUT, KERNEL = 4, 3
"""Side of the squares of output pixels that are computed at once, and of the kernel."""
SIDE = OUT + KERNEL - 1
"""Side of the squares of input pixels that they depend on."""
POINTS = (Fraction(0), Fraction(-1), Fraction(1), Fraction(1, 2), Fraction(-2))
"""Where polynomials are evaluated. These lose the fewest digits for 4 outputs of 3 weights (Barabasz et al. 2020,
"Error analysis and improving the accuracy of Winograd convolution for deep neural networks", table 1)."""
_PIECE = 2**19  # numbers of a piece of the transformed input: it and what it becomes stay in the cache

Matrix = list[list[Fraction]]


def winograd_conv2d(x: Tensor, products: Tensor, bias: Tensor | None = None) -> Tensor:
    """A 3x3 convolution of stride 1 and padding 1.

    36 products instead of 144 for 4 x 4 output pixels and each pair of channels (Lavin & Gray 2016, "Fast algorithms
    for convolutional neural networks", section 4.1). In single precision the error is some three times that of the
    convolution itself, 3e-6 of the largest output.

    Args:
        x: (B, C, h, w).
        products: the weights of :func:`winograd_weight`, (36, C, D).
        bias: (D,).

    Returns:
        (B, D, h, w), channels last.
    """
    (batch, channels, height, width), more = x.shape, products.shape[-1]
    rows, columns = -(-height // OUT), -(-width // OUT)
    _, of_input, of_output = _matrices(x.dtype)
    out = x.new_empty(batch, rows, OUT, columns, OUT, more)
    pieces = _pieces(x, max(channels, more))
    one, other = _buffers(2, x, pieces, max(channels, more))
    for size, alike in groupby(pieces, key=lambda piece: piece.size):
        there = _Transform(of_input, (SIDE, SIDE, *size, channels), one, other)
        back = _Transform(of_output, (SIDE, SIDE, *size, more), other, one)
        for piece in alike:
            there.squares.copy_(_squares(x, piece, SIDE, padding=1))
            torch.bmm(there(), products, out=back.rows)
            back()
            found = out[piece.images, piece.rows].permute(2, 4, 0, 1, 3, 5)
            if bias is None:
                found.copy_(back.result)
            else:
                torch.add(back.result, bias, out=found)
    return out.view(batch, rows * OUT, columns * OUT, more)[:, :height, :width].permute(0, 3, 1, 2)


def winograd_weight(weight: Tensor, *, backward: bool = False) -> Tensor:
    """The weights (D, C, 3, 3) for :func:`winograd_conv2d`, (36, C, D), four times as many.

    ``backward``: those, (36, D, C), that take the gradient of the output to that of the input.
    """
    of_kernel, _, _ = _matrices(weight.dtype)
    matrix = torch.kron(of_kernel, of_kernel)
    flat = weight.reshape(-1, KERNEL**2).t()
    if backward:  # the kernel turned by half a turn
        return torch.mm(matrix.flip(1), flat).view(SIDE**2, *weight.shape[:2])
    return torch.mm(matrix, flat).view(SIDE**2, *weight.shape[:2]).transpose(1, 2)


def winograd_weight_gradient(x: Tensor, grad: Tensor) -> Tensor:
    """The gradient (D, C, 3, 3) for the weights, of the input (B, C, h, w) and the output's gradient (B, D, h, w).

    That of the products is summed over all squares first, and transformed once (as the transpose of the convolution:
    each of its three matrices, transposed, in the other order).
    """
    channels, more = x.shape[1], grad.shape[1]
    of_kernel, of_input, of_output = _matrices(x.dtype)
    products = x.new_zeros(SIDE**2, more, channels)
    pieces = _pieces(x, max(channels, more))
    one, other, between = _buffers(3, x, pieces, max(channels, more))
    for size, alike in groupby(pieces, key=lambda piece: piece.size):
        inputs = _Transform(of_input, (SIDE, SIDE, *size, channels), one, between)
        grads = _Transform(of_output.t(), (OUT, OUT, *size, more), other, between)
        for piece in alike:
            inputs.squares.copy_(_squares(x, piece, SIDE, padding=1))
            grads.squares.copy_(_squares(grad, piece, OUT, padding=0))
            products.baddbmm_(grads().transpose(1, 2), inputs())
    matrix = torch.kron(of_kernel, of_kernel)
    return torch.mm(matrix.t(), products.view(SIDE**2, -1)).view(KERNEL, KERNEL, -1, channels).permute(2, 3, 0, 1)


def transforms() -> tuple[Matrix, Matrix, Matrix]:
    """G (6, 3), B (6, 6) and A (4, 6) with ``A ((G g) * (B d))`` the 4 outputs of weights g (3,) on inputs d (6,).

    After Toom and Cook: a product of polynomials is found from its values at :data:`POINTS` and at infinity. Rational,
    so exact.
    """
    scale = [_product([p - q for q in POINTS if q != p]) for p in POINTS]
    of_kernel = [[p**k / s for k in range(KERNEL)] for p, s in zip(POINTS, scale)] + [_unit(KERNEL)]
    of_input = [_coefficients([q for q in POINTS if q != p]) for p in POINTS] + [_coefficients(POINTS)]
    of_output = [[*(p**k for p in POINTS), Fraction(int(k == OUT - 1))] for k in range(OUT)]
    return of_kernel, of_input, of_output


@cache
def _matrices(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    with torch.inference_mode(False):  # what is made in inference mode cannot be used in training
        matrices = [[[float(entry) for entry in row] for row in matrix] for matrix in transforms()]
        of_kernel, of_input, of_output = (torch.tensor(matrix, dtype=dtype) for matrix in matrices)
    return of_kernel, of_input, of_output


class _Piece(NamedTuple):
    """Some images, or some rows of squares of one."""

    images: slice
    rows: slice
    size: tuple[int, int, int]
    """Of images, and of rows and columns of squares."""


def _pieces(x: Tensor, channels: int) -> list[_Piece]:
    """Those of a map (B, C, h, w) that has a square for each 4 x 4 pixels, pieces of one size side by side."""
    batch, rows, columns = len(x), *(-(-size // OUT) for size in x.shape[2:])
    step = max(1, _PIECE // (SIDE**2 * columns * channels))
    images = max(1, step // rows)
    pieces = []
    for image in range(0, batch, images):
        for row in range(0, rows, step):
            ends = min(image + images, batch), min(row + step, rows)
            size = ends[0] - image, ends[1] - row, columns
            pieces.append(_Piece(slice(image, ends[0]), slice(row, ends[1]), size))
    return sorted(pieces, key=lambda piece: piece.size)


def _squares(x: Tensor, piece: _Piece, side: int, padding: int) -> Tensor:
    """Of a piece of a map (B, C, h, w), overlapping squares (side, side, b, r, c, C), zero outside of the map."""
    start, stop = (OUT * row - padding for row in (piece.rows.start, piece.rows.stop))
    part = x[piece.images, :, max(start, 0) : stop - OUT + side]
    return windows(part, *piece.size[1:], side=side, stride=OUT, padding=(max(-start, 0), padding))


def _buffers(count: int, x: Tensor, pieces: list[_Piece], channels: int) -> Tensor:
    """Room for a transformed piece each: all pieces take turns in it, so that it stays in the cache."""
    largest = max((math.prod(piece.size) for piece in pieces), default=0)
    return x.new_empty(count, SIDE**2 * largest * channels)


class _Transform:
    """A matrix M (m, n) on squares S (n, n, ..., C): M S M^T, as ``result`` (m, m, ..., C).

    ``squares``, to be filled, and ``result`` lie in one buffer, what comes in between in another.
    """

    def __init__(self, matrix: Tensor, shape: tuple[int, ...], buffer: Tensor, between: Tensor) -> None:
        (after, before), (*_, channels) = matrix.shape, shape
        self.squares = _first(buffer, shape)
        self.rows = self.squares.view(before**2, -1, channels)
        self._flat = self.squares.view(before, -1)
        self._half = _first(between, (after, self._flat.shape[1]))
        self._halves = self._half.view(after, before, -1)
        self._whole = _first(buffer, (after, after, self._halves.shape[2]))
        self.result = self._whole.view(after, after, *shape[2:])
        self._result_rows = self._whole.view(after**2, -1, channels)
        self._matrix, self._matrices = matrix, matrix.expand(after, after, before)

    def __call__(self) -> Tensor:
        """The result, as (m * m, N, C)."""
        torch.mm(self._matrix, self._flat, out=self._half)
        torch.bmm(self._matrices, self._halves, out=self._whole)
        return self._result_rows


def _first(buffer: Tensor, shape: tuple[int, ...]) -> Tensor:
    return buffer[: math.prod(shape)].view(shape)


def _product(numbers: Sequence[Fraction]) -> Fraction:
    product = Fraction(1)
    for number in numbers:
        product *= number
    return product


def _unit(length: int) -> list[Fraction]:
    return [Fraction(0)] * (length - 1) + [Fraction(1)]


def _coefficients(roots: Sequence[Fraction]) -> list[Fraction]:
    """Of the polynomial with these roots, constant first, filled up to 6 numbers."""
    found = [Fraction(1)]
    for root in roots:
        found = [low - root * same for low, same in zip([Fraction(0), *found], [*found, Fraction(0)])]
    return found + [Fraction(0)] * (SIDE - len(found))
