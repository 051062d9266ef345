"""Parameter groups as RT-DETR's recipe has them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from mmdet.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS, OPTIMIZERS
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from torch import nn

from ..models.layers import LearnableAffine

_NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm, LearnableAffine)
"""Modules whose parameters scale and shift what passes: decay would only draw it to nothing."""


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class NoDecayOptimWrapperConstructor:
    """No weight decay on norms and biases, everywhere; a rate of its own for parts of the model.

    mmengine's default constructor takes ``norm_decay_mult`` and ``bias_decay_mult`` back where a ``custom_keys`` entry
    matches, and does not count attention's ``in_proj_bias`` as a bias. It also makes a group of every parameter, where
    this one makes as few as there are different settings.

    Args:
        optim_wrapper_cfg: the wrapper's config with its ``optimizer``.
        paramwise_cfg: ``lr_mult``, a dict from the beginning of parameter names to a factor on the rate; the longest
            that fits counts.

    Raises:
        ValueError: another key, or a name that no parameter begins with.
    """

    def __init__(self, optim_wrapper_cfg: Mapping[str, Any], paramwise_cfg: Mapping[str, Any] | None = None) -> None:
        unknown = set(paramwise_cfg or {}) - {'lr_mult'}
        if unknown:
            raise ValueError(f'paramwise_cfg has {sorted(unknown)}; {type(self).__name__} knows lr_mult alone')
        self.optim_wrapper_cfg = copy.deepcopy(dict(optim_wrapper_cfg))
        self.lr_mult = dict((paramwise_cfg or {}).get('lr_mult', {}))

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """Build the wrapper over the parameters that train."""
        wrapper_cfg = copy.deepcopy(self.optim_wrapper_cfg)
        optimizer_cfg = wrapper_cfg.pop('optimizer')
        wrapper_cfg.setdefault('type', 'OptimWrapper')
        bare: Any = model.module if is_model_wrapper(model) else model
        optimizer_cfg['params'] = self.groups(bare, optimizer_cfg['lr'])
        return OPTIM_WRAPPERS.build(wrapper_cfg, default_args={'optimizer': OPTIMIZERS.build(optimizer_cfg)})

    def groups(self, model: nn.Module, lr: float) -> list[dict[str, Any]]:
        """The optimizer's parameter groups; a parameter that two modules share counts once."""
        names = [name for name, _ in model.named_parameters()]
        for part in self.lr_mult:
            if not any(name.startswith(part) for name in names):
                raise ValueError(f'paramwise_cfg.lr_mult names {part!r}, which no parameter of the model begins with')
        norms = {id(p) for module in model.modules() if isinstance(module, _NORMS) for p in module.parameters(False)}
        grouped: dict[tuple[float, bool], list[nn.Parameter]] = {}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                decayed = id(parameter) not in norms and not name.endswith('bias')
                grouped.setdefault((self._factor(name), decayed), []).append(parameter)
        return [
            {'params': parameters, 'lr': lr * factor, **({} if decayed else {'weight_decay': 0.0})}
            for (factor, decayed), parameters in grouped.items()
        ]

    def _factor(self, name: str) -> float:
        fitting = [part for part in self.lr_mult if name.startswith(part)]
        return self.lr_mult[max(fitting, key=len)] if fitting else 1.0
