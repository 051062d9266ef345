"""A config file that says what it has otherwise than the one it is based on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

_DELETE = '_delete_'  # mmengine's key for a dict that takes another's place whole


def child_text(base: Path, changed: Config, title: str) -> str:
    """The text of a config file.

    Args:
        base: of the file that it is based on.
        changed: what the file is to resolve to.
        title: its docstring.

    Raises:
        ValueError: the text resolves to something else.
    """
    before, after = Config.fromfile(base).to_dict(), changed.to_dict()
    body = Config(_difference(before, after)).pretty_text
    text = f'"""{title}"""\n\n_base_ = [{str(base)!r}]\n\n{body}'
    again = Config.fromstring(text, '.py').to_dict()
    if again != after:
        raise ValueError(f'not the same again: {_difference(again, after)}')
    return text


def _difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """What mmengine merges into ``before`` to get ``after``, which has all that ``before`` has at the top."""
    return {
        key: _changed(before[key], value) if key in before else value
        for key, value in after.items()
        if key not in before or before[key] != value
    }


def _changed(before: Any, after: Any) -> Any:
    if not isinstance(after, Mapping):
        return after
    if not isinstance(before, Mapping) or before.keys() - after.keys():
        return {**after, _DELETE: True}
    return _difference(before, after)
