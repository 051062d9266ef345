"""Position codes of queries, learned from their boxes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ...argument_checks import check_configs, check_counts, check_numbers
from ...errors import InputError
from .mlp import MLP


class BoxPositionMLP(MLP):
    """Turns boxes (..., 4), cx, cy, w, h in [0, 1], into position codes (..., D).

    Its first two layers start Xavier-uniform, as in RT-DETR, D-FINE and DEIM, or as many as are named.

    Args:
        embed_dims: width D of a code.
        hidden_dims: width between the layers; None: 2 D.
        num_layers: linear layers.
        act_cfg: activation between them; None: ReLU.
        clamp: codes are held in [-clamp, clamp] (10 in D-FINE); None: they are not.
        num_xavier: how many layers start so (all three in DEIMv2); the others as PyTorch's.
    """

    def __init__(
        self,
        embed_dims: int,
        *,
        hidden_dims: int | None = None,
        num_layers: int = 2,
        act_cfg: dict[str, Any] | None = None,
        clamp: float | None = None,
        num_xavier: int = 2,
    ) -> None:
        hidden_dims = 2 * embed_dims if hidden_dims is None else hidden_dims
        check_counts(hidden_dims=hidden_dims, num_layers=num_layers)
        check_counts(least=0, num_xavier=num_xavier)
        check_configs(act_cfg=act_cfg)
        if clamp is not None:
            check_numbers(clamp=clamp)
        super().__init__(4, hidden_dims, embed_dims, num_layers, act_cfg=act_cfg)
        self.clamp = clamp
        for i in range(min(num_xavier, num_layers)):
            nn.init.xavier_uniform_(self.get_parameter(f'layers.{i}.weight'))

    @classmethod
    def from_cfg(cls, embed_dims: int, query_pos: Mapping[str, Any] | None) -> BoxPositionMLP:
        """The module of a decoder's ``query_pos``: the arguments by name; None: all as they are here.

        Raises:
            InputError: it is no dict, or has another name or a value that cannot be.
        """
        check_configs(query_pos=query_pos)
        known = ('hidden_dims', 'num_layers', 'act_cfg', 'clamp', 'num_xavier')
        for name in query_pos or {}:
            if name not in known:
                raise InputError(f'query_pos has {name!r}; it knows {", ".join(known)}')
        return cls(embed_dims, **(query_pos or {}))

    def forward(self, boxes: Tensor) -> Tensor:
        codes = super().forward(boxes)
        return codes if self.clamp is None else codes.clamp(-self.clamp, self.clamp)
