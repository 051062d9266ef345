"""Multi-layer perceptron."""

from __future__ import annotations

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
        act_cfg: dict | None = None,
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
