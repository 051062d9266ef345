"""Checks of what a config gives a part: each names the argument and the values it can have."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Integral, Real

from .core.deformable_attention import BACKENDS
from .errors import InputError


def check_counts(*, least: int | None = 1, **values: object) -> None:
    """Raise :class:`InputError` unless each is a whole number, of at least ``least`` where that is given."""
    for name, value in values.items():
        whole = isinstance(value, Integral) and not isinstance(value, bool)
        if not whole or (least is not None and value < least):  # type: ignore[operator]
            bound = '' if least is None else f'at least {least} and '
            raise InputError(f'{name} must be {bound}a whole number, got {value!r}')


def check_numbers(*, least: float = 0.0, most: float = math.inf, **values: object) -> None:
    """Raise :class:`InputError` unless each is a finite number from ``least`` to ``most``."""
    for name, value in values.items():
        real = isinstance(value, Real) and not isinstance(value, bool)
        if not real or not math.isfinite(value) or not least <= value <= most:  # type: ignore[arg-type, operator]
            bound = f'lie in [{least:g}, {most:g}]' if math.isfinite(most) else f'be a number of at least {least:g}'
            raise InputError(f'{name} must {bound}, got {value!r}')


def check_flags(**values: object) -> None:
    """Raise :class:`InputError` unless each is True or False."""
    for name, value in values.items():
        if not isinstance(value, bool):
            raise InputError(f'{name} must be True or False, got {value!r}')


def check_choice(choices: Sequence[object], **values: object) -> None:
    """Raise :class:`InputError` unless each is one of the names."""
    for name, value in values.items():
        if value not in choices:
            raise InputError(f'{name} must be one of {list(choices)}, got {value!r}')


def check_configs(**values: object) -> None:
    """Raise :class:`InputError` unless each is None or a dict."""
    for name, value in values.items():
        if value is not None and not isinstance(value, Mapping):
            raise InputError(f'{name} must be a dict, such as dict(name=value), or None, got {value!r}')


def check_sequence(*, least: int | None = 1, **values: object) -> None:
    """Raise :class:`InputError` unless each is a list, not empty, that :func:`check_counts` likes."""
    for name, value in values.items():
        if not isinstance(value, Sequence) or isinstance(value, str) or not value:
            raise InputError(f'{name} must be a list of whole numbers, got {value!r}')
        check_counts(least=least, **{f'{name}[{i}]': item for i, item in enumerate(value)})


def check_points(num_points: object, num_levels: int) -> None:
    """Raise :class:`InputError` unless it is one number of sampling points for all levels, or one for each."""
    check_counts(num_levels=num_levels)
    if not isinstance(num_points, Sequence) or isinstance(num_points, str):
        return check_counts(num_points=num_points)
    check_sequence(num_points=num_points)
    if len(num_points) != num_levels:
        raise InputError(
            f'num_points={[*num_points]} names the points of {len(num_points)} levels, but num_levels is {num_levels}: '
            'give one number for all levels, or one for each'
        )
    return None


def check_range(name: str, values: object, *, least: float) -> tuple[float, float]:
    """The two numbers; :class:`InputError` unless they are that, in order, and not below ``least``."""
    if not isinstance(values, Sequence) or len(values) != 2:
        raise InputError(f'{name} must be two numbers, the lower and the upper, got {values!r}')
    low, high = values
    check_numbers(least=least, **{f'{name}[0]': low, f'{name}[1]': high})
    if low > high:
        raise InputError(f'{name} must have its lower number first, got {values!r}')
    return low, high


def check_names(**values: object) -> None:
    """Raise :class:`InputError` unless each is a list of names, not empty."""
    for name, value in values.items():
        listed = isinstance(value, Sequence) and not isinstance(value, str) and len(value) > 0
        if not listed or not all(isinstance(item, str) for item in value):  # type: ignore[attr-defined]
            raise InputError(f"{name} must be a list of names such as ['mosaic'], got {value!r}")


def check_heads(num_heads: int, **width: int) -> None:
    """Raise :class:`InputError` unless attention heads share a width, given under its name, equally."""
    check_counts(**width, num_heads=num_heads)
    for name, value in width.items():
        if value % num_heads:
            raise InputError(f'{name} {value} must be divisible by num_heads {num_heads}')


def check_backend(name: object) -> None:
    """Raise :class:`InputError` unless it is None or names a back end of deformable attention."""
    if name is not None:
        check_choice([*BACKENDS], attention_backend=name)
