"""Multi-layer perceptron, and the gated one."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from mmcv.cnn import build_activation_layer
from torch import Tensor, nn

from ...core import within_range


class MLP(nn.Module):
    """``num_layers`` linear layers with an activation between them: (..., in) to (..., out).

    ``zero_output``: start with an output of zero for every input, as a box head does. ``act_cfg``: the activation;
    None: ReLU.
    """

    def __init__(
        self,
        in_dims: int,
        hidden_dims: int,
        out_dims: int,
        num_layers: int,
        *,
        zero_output: bool = False,
        act_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        widths = [in_dims, *[hidden_dims] * (num_layers - 1), out_dims]
        layers = [nn.Linear(a, b) for a, b in zip(widths[:-1], widths[1:])]
        if zero_output:
            nn.init.zeros_(layers[-1].weight)
            nn.init.zeros_(layers[-1].bias)
        self.layers = nn.ModuleList(layers)
        self.act = build_activation_layer(act_cfg or {'type': 'ReLU'})

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = self.act(within_range(layer(x)))
        return within_range(self.layers[-1](x))


class SwiGLU(nn.Module):
    """Feed-forward network with gated hidden features: ``w3(silu(a) * b)``, where a and b are the halves of ``w12(x)``.

    SwiGLU (Shazeer 2020) with biases. Weights start Xavier-uniform, biases at zero (DEIMv2's code).

    Args:
        embed_dims: width D.
        hidden_dims: width of a and of b.
    """

    def __init__(self, embed_dims: int, hidden_dims: int) -> None:
        super().__init__()
        self.w12 = nn.Linear(embed_dims, 2 * hidden_dims)
        self.w3 = nn.Linear(hidden_dims, embed_dims)
        for linear in (self.w12, self.w3):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) to (..., D)."""
        return within_range(self.w3(self.act(within_range(self.w12(x)))))

    @staticmethod
    def act(x: Tensor) -> Tensor:
        """a and b side by side, (..., 2h), to silu(a) * b, (..., h)."""
        gate, hidden = x.chunk(2, dim=-1)
        return within_range(F.silu(gate) * hidden)
