"""The functions that an exception came through, and what they were at work on: mmengine's tell it in no other way."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from types import FrameType
from typing import Any, NamedTuple


class Building(NamedTuple):
    """What mmengine builds an object from."""

    cfg: Mapping[str, Any]
    type: Any = None
    """As the config names it; None: not read yet."""
    registry: Any = None
    """Where it is looked for."""
    kind: Any = None
    """The class or function of that name; None: not found."""


class Call(NamedTuple):
    """A function that an exception came through. It keeps alive what it refers to."""

    module: str
    function: str
    owner: Any
    """The object whose method it is; None: of none."""
    arguments: dict[str, Any]
    """Positional ones but for the owner, by the names of the parameters; values as last bound to them."""
    building: Building | None
    """None: it builds nothing."""


def calls(error: BaseException) -> list[Call]:
    """The functions that an exception came through, outermost first."""
    return [_call(frame) for frame, _ in traceback.walk_tb(error.__traceback__)]


def _call(frame: FrameType) -> Call:
    code, local = frame.f_code, frame.f_locals
    names = [name for name in code.co_varnames[: code.co_argcount] if name != 'self']
    arguments = {name: local.get(name) for name in names}
    module = str(frame.f_globals.get('__name__'))
    return Call(module, code.co_name, local.get('self'), arguments, _building(module, code.co_name, local))


def _building(module: str, function: str, local: Mapping[str, Any]) -> Building | None:
    if function == 'build_dataloader':
        cfg = local.get('dataloader')
    elif module == 'mmengine.registry.build_functions':
        cfg = {} if function == 'build_runner_from_cfg' else local.get('cfg')  # the whole config is no entry of it
    else:
        return None
    details = (local.get(name) for name in ('obj_type', 'registry', 'obj_cls'))
    return Building(cfg, *details) if isinstance(cfg, Mapping) else None
