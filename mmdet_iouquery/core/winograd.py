"""3x3 convolutions by minimal filtering (Winograd), as matrix products: fewer multiplications, on CPUs."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .recording import is_recorded

OUT, KERNEL = 4, 3
"""Side of the squares of output pixels that are computed at once, and of the kernel."""
SIDE = OUT + KERNEL - 1
"""Side of the squares of input pixels that they depend on."""
POINTS = (Fraction(0), Fraction(-1), Fraction(1), Fraction(1, 2), Fraction(-2))
"""Where polynomials are evaluated. These lose the fewest digits for 4 outputs of 3 weights (Barabasz et al. 2020,
"Error analysis and improving the accuracy of Winograd convolution for deep neural networks", table 1)."""
_PIECE = 2**20  # numbers of a piece of the transformed input: it stays in a cache of some megabytes

Matrix = list[list[Fraction]]


class WinogradConv2d(nn.Module):
    """What a :class:`torch.nn.Conv2d` of 3x3, stride 1 and padding 1 computes (Lavin & Gray 2016, section 4.1).

    36 products instead of 144 for 4 x 4 output pixels and each pair of channels. In single precision the error is some
    three times that of the convolution itself, 3e-6 of the largest output. It takes four times the memory of the
    weights, which are kept for where a graph is recorded. For prediction only.

    Args:
        conv: the convolution, see :func:`can_winograd`.
    """

    products: Tensor
    of_input: Tensor
    of_output: Tensor

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias = conv.weight, conv.bias
        of_kernel, of_input, of_output = (torch.tensor(to_float(m), dtype=torch.float64) for m in transforms())
        weight = torch.einsum('ai,bj,ocij->abco', of_kernel, of_kernel, conv.weight.detach().double().cpu())
        tables = {
            'products': weight.flatten(0, 1),  # (36, C, D)
            'of_input': torch.kron(of_input, of_input),  # (36, 36)
            'of_output': torch.kron(of_output, of_output),  # (16, 36)
        }
        for name, table in tables.items():
            self.register_buffer(name, table.to(conv.weight).contiguous(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to (B, D, h, w), channels last."""
        if is_recorded(x, self.weight):
            return F.conv2d(x, self.weight, self.bias, padding=1)
        batch, channels, height, width = x.shape
        rows, columns = -(-height // OUT), -(-width // OUT)
        padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, columns * OUT - width + 1, 1, rows * OUT - height + 1))
        image, row, column, _ = padded.stride()
        squares = padded.as_strided(
            (batch, SIDE, SIDE, rows, columns, channels), (image, row, column, row * OUT, column * OUT, 1)
        )
        out = x.new_empty(batch, rows, OUT, columns, OUT, self.products.shape[-1])
        step = max(1, _PIECE // (SIDE**2 * columns * max(channels, out.shape[-1])))
        for i in range(batch):
            for first in range(0, rows, step):
                self._piece(squares[i, :, :, first : first + step], out[i, first : first + step])
        return out.view(batch, rows * OUT, columns * OUT, -1)[:, :height, :width].permute(0, 3, 1, 2)

    def _piece(self, squares: Tensor, out: Tensor) -> None:
        """squares (6, 6, r, c, C) to out (r, 4, c, 4, D)."""
        rows, columns, channels = squares.shape[2:]
        transformed = torch.mm(self.of_input, squares.reshape(SIDE**2, -1)).view(SIDE**2, rows * columns, channels)
        products = torch.bmm(transformed, self.products)
        found = torch.mm(self.of_output, products.view(SIDE**2, -1)).view(OUT, OUT, rows, columns, -1)
        found = found.permute(2, 0, 3, 1, 4)
        if self.bias is None:
            out.copy_(found)
        else:
            torch.add(found, self.bias, out=out)


def can_winograd(conv: nn.Conv2d) -> bool:
    """Whether :class:`WinogradConv2d` computes the same, and is faster: enough channels for matrix products to pay."""
    same = (
        conv.kernel_size == (3, 3)
        and conv.stride == conv.dilation == (1, 1)
        and conv.padding == (1, 1)
        and conv.padding_mode == 'zeros'
        and conv.groups == 1
    )
    return same and min(conv.in_channels, conv.out_channels) >= 128


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


def to_float(matrix: Matrix) -> list[list[float]]:
    """For torch, which knows no fractions."""
    return [[float(entry) for entry in row] for row in matrix]


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
