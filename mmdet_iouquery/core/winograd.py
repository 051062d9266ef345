"""3x3 convolutions and their gradients by minimal filtering (Winograd), as a quarter of the multiplications."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

OUT, KERNEL = 4, 3
"""Side of the squares of output pixels that are computed at once, and of the kernel."""
SIDE = OUT + KERNEL - 1
"""Side of the squares of input pixels that they depend on."""
POINTS = (Fraction(0), Fraction(-1), Fraction(1), Fraction(1, 2), Fraction(-2))
"""Where polynomials are evaluated. These lose the fewest digits for 4 outputs of 3 weights (Barabasz et al. 2020,
"Error analysis and improving the accuracy of Winograd convolution for deep neural networks", table 1)."""
_PIECE = 2**20  # numbers of a piece of the transformed input: it stays in a cache of some megabytes

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
    batch, channels, height, width = x.shape
    rows, columns = -(-height // OUT), -(-width // OUT)
    _, of_input, of_output = _matrices(x.dtype)
    squares = _squares(x, 1, SIDE)
    out = x.new_empty(batch, rows, OUT, columns, OUT, products.shape[-1])
    for images, some in _pieces(batch, rows, columns, max(channels, out.shape[-1])):
        transformed = _on_both_sides(of_input, squares[:, :, images, some])
        found = _on_both_sides(of_output, torch.bmm(transformed, products).view(SIDE, SIDE, -1))
        piece = out[images, some]
        found = found.view(OUT, OUT, *piece.shape[:2], columns, -1).permute(2, 3, 0, 4, 1, 5)
        if bias is None:
            piece.copy_(found)
        else:
            torch.add(found, bias, out=piece)
    return out.view(batch, rows * OUT, columns * OUT, -1)[:, :height, :width].permute(0, 3, 1, 2)


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
    batch, channels, height, width = x.shape
    of_kernel, of_input, of_output = _matrices(x.dtype)
    inputs, grads = _squares(x, 1, SIDE), _squares(grad, 0, OUT)
    products = x.new_zeros(SIDE**2, grad.shape[1], channels)
    for images, some in _pieces(batch, -(-height // OUT), -(-width // OUT), max(channels, grad.shape[1])):
        one = _on_both_sides(of_output.t(), grads[:, :, images, some])
        other = _on_both_sides(of_input, inputs[:, :, images, some])
        products.baddbmm_(one.transpose(1, 2), other)
    matrix = torch.kron(of_kernel, of_kernel)
    return torch.mm(products.view(SIDE**2, -1).t(), matrix).view(-1, channels, KERNEL, KERNEL)


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
    """(B, C, h, w) as overlapping squares (side, side, B, r, c, C), one for each 4 x 4 pixels, zero outside the map."""
    _, channels, height, width = x.shape
    rows, columns = -(-height // OUT), -(-width // OUT)
    right, below = (OUT * n + side - OUT - padding for n in (columns, rows))
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, padding, right - width, padding, below - height))
    image, row, column, channel = padded.stride()
    return padded.as_strided(
        (side, side, len(x), rows, columns, channels), (row, column, image, row * OUT, column * OUT, channel)
    )


def _pieces(batch: int, rows: int, columns: int, channels: int) -> Iterator[tuple[slice, slice]]:
    """Slices of images and of rows of squares that together are all of them: some images, or some rows of one."""
    step = max(1, _PIECE // (SIDE**2 * columns * channels))
    images = max(1, step // rows)
    for image in range(0, batch, images):
        for row in range(0, rows, step):
            yield slice(image, image + images), slice(row, row + step)


def _on_both_sides(matrix: Tensor, squares: Tensor) -> Tensor:
    """A matrix M (m, n) on squares S (n, n, ...) of numbers: M S M^T, as (m * m, N, C) of the last dimension C."""
    after, before = matrix.shape
    half = torch.mm(matrix, squares.reshape(before, -1)).view(after, before, -1)
    whole = torch.bmm(matrix.expand(after, after, before), half)
    return whole.view(after**2, -1, squares.shape[-1])


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
