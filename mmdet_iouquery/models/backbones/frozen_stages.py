"""Frozen stages and frozen norm statistics, shared by the backbones."""

from __future__ import annotations

from typing import TypeVar

from mmengine.model import BaseModule
from torch import nn

Backbone = TypeVar('Backbone', bound='FrozenStages')


class FrozenStages(BaseModule):
    """A backbone whose frozen parts stay in evaluation mode while it trains."""

    norm_eval = False
    """Whether norms keep their running statistics."""

    def _frozen(self) -> list[nn.Module]:
        """The parts that do not learn."""
        return []

    def train(self: Backbone, mode: bool = True) -> Backbone:
        """As everywhere in torch, but for what is frozen."""
        super().train(mode)
        norms = [module for module in self.modules() if self.norm_eval and hasattr(module, 'running_mean')]
        for module in [*self._frozen(), *norms]:
            module.eval()
        return self
