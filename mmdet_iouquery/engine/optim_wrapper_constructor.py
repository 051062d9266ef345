"""Parameter groups as RT-DETR's recipe has them."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from itertools import chain
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

    ``rules`` make exceptions by name. Authors group by patterns, some of which say something else than what stands
    beside them. The shipped configs of D-FINE, DEIM, DEIMv2, RT-DETRv2, RT-DETRv4 and ECDet have ``authors_rules`` that
    give their groups, and ``authors_groups`` makes them hold, so that a recipe can be compared under the same groups::

        iouquery train CONFIG --cfg-options optim_wrapper.paramwise_cfg.authors_groups=True

    Args:
        optim_wrapper_cfg: the wrapper's config with its ``optimizer``.
        paramwise_cfg: ``lr_mult``, a dict from the beginning of parameter names to a factor on the rate; the longest
            that fits counts. ``rules``, dicts with a ``pattern`` (a regular expression that is found in a name) and
            ``lr_mult`` or ``decay`` (True or False) or both; the first that fits counts, and what it does not say is as
            without it. ``authors_rules``, more of them, which stand behind ``rules`` if ``authors_groups`` (a flag,
            False by default) is set, and have no effect otherwise.

    Raises:
        ValueError: another key, a rule of another form, ``authors_groups`` without ``authors_rules``, or a name or
            pattern that is used and fits no parameter.
    """

    def __init__(self, optim_wrapper_cfg: Mapping[str, Any], paramwise_cfg: Mapping[str, Any] | None = None) -> None:
        paramwise = dict(paramwise_cfg or {})
        unknown = set(paramwise) - {'lr_mult', 'rules', 'authors_rules', 'authors_groups'}
        if unknown:
            raise ValueError(
                f'paramwise_cfg has {sorted(unknown)}; {type(self).__name__} knows lr_mult, rules, authors_rules and '
                'authors_groups alone: leave the others out'
            )
        authors_groups = paramwise.get('authors_groups', False)
        check_flags(authors_groups=authors_groups)
        if authors_groups and 'authors_rules' not in paramwise:
            raise ValueError(
                'paramwise_cfg.authors_groups is True, and the config has no authors_rules that give the groups; add '
                'them ([] where the groups are the same), or leave authors_groups out'
            )
        self.optim_wrapper_cfg = copy.deepcopy(dict(optim_wrapper_cfg))
        self.lr_mult = dict(paramwise.get('lr_mult', {}))
        self.rules = {key: _checked(key, paramwise.get(key, [])) for key in ('rules', 'authors_rules')}
        if not authors_groups:
            self.rules['authors_rules'] = []

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
        for key, rules in self.rules.items():
            for rule in rules:
                if not any(re.search(rule['pattern'], name) for name in names):
                    raise ValueError(
                        f'paramwise_cfg.{key}: {rule["pattern"]!r} is found in no name of the parameters; correct the '
                        'pattern'
                    )
        norms = {id(p) for module in model.modules() if _scales(module) for p in module.parameters(False)}
        grouped: dict[tuple[float, bool], list[nn.Parameter]] = {}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                rule = next((rule for rule in chain(*self.rules.values()) if re.search(rule['pattern'], name)), {})
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


def _checked(key: str, rules: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    for rule in rules:
        if not isinstance(rule, Mapping) or 'pattern' not in rule or not set(rule) <= {'pattern', 'lr_mult', 'decay'}:
            raise ValueError(f'paramwise_cfg.{key} must be dicts of pattern, lr_mult and decay, got {rule!r}')
        check_numbers(lr_mult=rule.get('lr_mult', 1.0))
        check_flags(decay=rule.get('decay', True))
        try:
            re.compile(rule['pattern'])
        except (TypeError, re.error) as error:
            raise ValueError(
                f'paramwise_cfg.{key}: {rule["pattern"]!r} is no regular expression: {error}; correct it'
            ) from error
    return [dict(rule) for rule in rules]
