"""3x3 convolutions and their gradients by minimal filtering (Winograd), as a quarter of the multiplications."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from itertools import groupby

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
    pieces = _pieces(max(channels, more), _squares(x, 1, SIDE), out.permute(2, 4, 0, 1, 3, 5))
    one, other = _buffers(2, max(channels, more), pieces)
    for (_, _, *count, _), alike in groupby(pieces, key=lambda piece: piece[0].shape):
        there = _Transform(of_input, (SIDE, SIDE, *count, channels), one, other)
        back = _Transform(of_output, (SIDE, SIDE, *count, more), other, one)
        for squares, found in alike:
            there.squares.copy_(squares)
            torch.bmm(there(), products, out=back.rows)
            back()
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
    pieces = _pieces(max(channels, more), _squares(x, 1, SIDE), _squares(grad, 0, OUT))
    one, other, between = _buffers(3, max(channels, more), pieces)
    for (_, _, *count, _), alike in groupby(pieces, key=lambda piece: piece[0].shape):
        inputs = _Transform(of_input, (SIDE, SIDE, *count, channels), one, between)
        grads = _Transform(of_output.t(), (OUT, OUT, *count, more), other, between)
        for squares, of_squares in alike:
            inputs.squares.copy_(squares)
            grads.squares.copy_(of_squares)
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


def _squares(x: Tensor, padding: int, side: int) -> Tensor:
    """(B, C, h, w) as overlapping squares (side, side, B, r, c, C), one for each 4 x 4 pixels."""
    rows, columns = (-(-size // OUT) for size in x.shape[2:])
    return windows(x, rows, columns, side=side, stride=OUT, padding=(padding, padding))


def _pieces(channels: int, *several: Tensor) -> list[tuple[Tensor, ...]]:
    """Tensors (., ., B, r, c, .) side by side in pieces, of some images or of some rows of one."""
    rows, columns = several[0].shape[3:5]
    step = max(1, _PIECE // (SIDE**2 * columns * channels))
    images = max(1, step // rows)
    return list(zip(*([piece for some in x.split(images, 2) for piece in some.split(step, 3)] for x in several)))


def _buffers(count: int, channels: int, pieces: list[tuple[Tensor, ...]]) -> Tensor:
    """Room for a transformed piece each: all pieces take turns in it, so that it stays in the cache."""
    first = pieces[0][0]
    return first.new_empty(count, SIDE**2 * math.prod(first.shape[2:5]) * channels)


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
