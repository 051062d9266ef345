"""Arguments of the parts that a config names, held against what another project's model computes."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, cast

from mmdet.registry import MODELS

from ..config_options import type_name
from ..errors import InputError

_TRAINING = {'init_cfg', 'train_cfg', 'criterion', 'dropout', 'with_cp', 'attention_backend', 'ffn_init'}
"""Arguments of any part that predictions do not depend on."""


def check_kind(where: str, node: Any, kind: str) -> None:
    """Raise :class:`InputError` unless an entry of a config is a part of that type."""
    has = type_name(node) if isinstance(node, Mapping) else 'missing'
    if has != kind:
        raise InputError(
            f'{where} is {has}, and the model of transformers has only what {kind} computes; such a detector cannot be '
            'converted: keep it in the form of mmdet'
        )


def part_arguments(
    where: str,
    node: Mapping[str, Any],
    *,
    given: set[str],
    training: Sequence[str] = (),
    fixed: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """All arguments of a part, defaults filled in.

    Args:
        where: the entry, for messages.
        node: the config of the part.
        given: arguments that ``config.json`` has a name for.
        training: further arguments of no effect on predictions.
        fixed: what others must be, where that is not the default.

    Raises:
        InputError: another one is not as transformers has it.
    """
    defaults = _defaults(cast(type, MODELS.get(node['type'])) if isinstance(node['type'], str) else node['type'])
    wanted = {**defaults, **(fixed or {})}
    arguments = {**defaults, **{name: value for name, value in node.items() if name not in ('type', '_scope_')}}
    for name, value in arguments.items():
        if name == 'norm_cfg':
            _check_norm(f'{where}.norm_cfg', value or {'type': 'BN'})
        elif name not in {*given, *training, *_TRAINING} and not _equal(value, wanted.get(name)):
            raise InputError(
                f'{where}.{name} is {value!r}, and transformers knows only {wanted.get(name)!r} there; such a detector '
                'cannot be converted: keep it in the form of mmdet'
            )
    return arguments


def _defaults(part: type[Any]) -> dict[str, Any]:
    """Default values of a class's arguments, those that it hands on to its parent among them; None: it has none."""
    values: dict[str, Any] = {}
    for kind in part.__mro__:
        if '__init__' in vars(kind):
            items = [*inspect.signature(vars(kind)['__init__']).parameters.values()][1:]
            for item in items:
                if item.kind is not item.VAR_KEYWORD:
                    values.setdefault(item.name, None if item.default is item.empty else item.default)
            if all(item.kind is not item.VAR_KEYWORD for item in items):
                break
    return values


def _equal(value: Any, wanted: Any) -> bool:
    """Whether a value is the one that is wanted: lists are tuples, and a name is that of an activation."""
    if isinstance(wanted, str) and isinstance(value, Mapping):
        return set(value) <= {'type', 'inplace'} and type_name(value) == wanted
    if value is None and wanted in ('ReLU', 'SiLU', 'GELU'):
        return True  # what the part has by itself
    return (tuple(value) if isinstance(value, list) else value) == wanted


def _check_norm(where: str, norm_cfg: Mapping[str, Any]) -> None:
    if type_name(norm_cfg) not in ('BN', 'BN2d', 'SyncBN') or norm_cfg.get('eps', 1e-5) != 1e-5:
        raise InputError(
            f'{where} is {dict(norm_cfg)}, and transformers has only batch norms of an eps of 1e-5; such a detector '
            'cannot be converted: keep it in the form of mmdet'
        )
