"""Parameter groups as RT-DETR's recipe has them."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from typing import Any

from mmcv.cnn import is_norm
from mmdet.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS, OPTIMIZERS
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from torch import nn

from ..argument_checks import check_flags, check_numbers
from ..models.layers import LearnableAffine, RMSNorm


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class NoDecayOptimWrapperConstructor:
    """No weight decay on norms, learnable affine steps and biases; a rate of its own for parts of the model.

    mmengine's default constructor takes ``norm_decay_mult`` and ``bias_decay_mult`` back where a ``custom_keys`` entry
    matches, and does not count attention's ``in_proj_bias`` as a bias. It also makes a group of every parameter, where
    this one makes as few as there are different settings.

    ``rules`` make exceptions by name. The authors of D-FINE, DEIM and RT-DETRv2 group by patterns, some of which say
    something else than what stands beside them; with rules a recipe is compared under their groups. Those of D-FINE-N,
    -S and -M, whose backbone decays whole, norms and biases too::

        paramwise_cfg=dict(lr_mult=dict(backbone=0.5), rules=[dict(pattern='^backbone', decay=True)])

    Args:
        optim_wrapper_cfg: the wrapper's config with its ``optimizer``.
        paramwise_cfg: ``lr_mult``, a dict from the beginning of parameter names to a factor on the rate; the longest
            that fits counts. ``rules``, dicts with a ``pattern`` (a regular expression that is found in a name) and
            ``lr_mult`` or ``decay`` (True or False) or both; the first that fits counts, and what it does not say is as
            without it.

    Raises:
        ValueError: another key, or a name or pattern that fits no parameter.
    """

    def __init__(self, optim_wrapper_cfg: Mapping[str, Any], paramwise_cfg: Mapping[str, Any] | None = None) -> None:
        unknown = set(paramwise_cfg or {}) - {'lr_mult', 'rules'}
        if unknown:
            raise ValueError(
                f'paramwise_cfg has {sorted(unknown)}; {type(self).__name__} knows lr_mult and rules alone: leave the '
                'others out'
            )
        self.optim_wrapper_cfg = copy.deepcopy(dict(optim_wrapper_cfg))
        self.lr_mult = dict((paramwise_cfg or {}).get('lr_mult', {}))
        self.rules = [_checked(rule) for rule in (paramwise_cfg or {}).get('rules', [])]

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
        for prefix in self.lr_mult:
            if not any(name.startswith(prefix) for name in names):
                raise ValueError(
                    f'paramwise_cfg.lr_mult names {prefix!r}, which no parameter of the model begins with; correct the '
                    'name'
                )
        for rule in self.rules:
            if not any(re.search(rule['pattern'], name) for name in names):
                raise ValueError(
                    f'paramwise_cfg.rules: {rule["pattern"]!r} is found in no name of the parameters; correct the '
                    'pattern'
                )
        norms = {id(p) for module in model.modules() if _scales(module) for p in module.parameters(False)}
        grouped: dict[tuple[float, bool], list[nn.Parameter]] = {}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                rule = next((rule for rule in self.rules if re.search(rule['pattern'], name)), {})
                decayed = rule.get('decay', id(parameter) not in norms and not name.endswith('bias'))
                grouped.setdefault((rule.get('lr_mult', self._factor(name)), decayed), []).append(parameter)
        return [
            {'params': parameters, 'lr': lr * factor, **({} if decayed else {'weight_decay': 0.0})}
            for (factor, decayed), parameters in grouped.items()
        ]

    def _factor(self, name: str) -> float:
        fitting = [prefix for prefix in self.lr_mult if name.startswith(prefix)]
        return self.lr_mult[max(fitting, key=len)] if fitting else 1.0


def _scales(module: nn.Module) -> bool:
    """Whether its parameters scale and shift what passes: decay would only draw it to nothing."""
    return is_norm(module) or isinstance(module, (RMSNorm, LearnableAffine))


def _checked(rule: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(rule, Mapping) or 'pattern' not in rule or not set(rule) <= {'pattern', 'lr_mult', 'decay'}:
        raise ValueError(f'paramwise_cfg.rules must be dicts of pattern, lr_mult and decay, got {rule!r}')
    check_numbers(lr_mult=rule.get('lr_mult', 1.0))
    check_flags(decay=rule.get('decay', True))
    try:
        re.compile(rule['pattern'])
    except (TypeError, re.error) as error:
        raise ValueError(
            f'paramwise_cfg.rules: {rule["pattern"]!r} is no regular expression: {error}; correct it'
        ) from error
    return dict(rule)
