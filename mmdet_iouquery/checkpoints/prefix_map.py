"""Key maps between projects: a list of prefix pairs, read in either direction."""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import InputError


def is_of_training_alone(key: str) -> bool:
    """Whether prediction never reads the weight of that name of ours: a data preprocessor's are a distillation's."""
    return key.startswith('data_preprocessor.')


class PrefixMap:
    """Rename keys by their longest known prefix.

    One-to-one by construction, so the way back is the same table read from the right.

    Args:
        pairs: (their prefix, our prefix); both sides must be free of repetitions.
        project: whose keys these are, for error messages.
    """

    def __init__(self, pairs: Iterable[tuple[str, str]], project: str) -> None:
        self.pairs = tuple(pairs)
        self.project = project
        self._ours = dict(self.pairs)
        self._theirs = {ours: theirs for theirs, ours in self.pairs}
        if not len(self._ours) == len(self._theirs) == len(self.pairs):
            raise ValueError(f'the key map of {project} is not one-to-one')

    def to_ours(self, key: str) -> str:
        """Our name of their ``key``; an unknown one raises :class:`InputError` naming it."""
        return _rename(key, self._ours, f'a key of {self.project}')

    def to_theirs(self, key: str) -> str:
        """Their name of our ``key``; an unknown one raises :class:`InputError` naming it."""
        return _rename(key, self._theirs, f'a key that {self.project} has a name for')


def _rename(key: str, table: dict[str, str], expected: str) -> str:
    """Replace the longest prefix of ``key`` in ``table``, the key itself or one that ends at a dot."""
    if key in table:
        return table[key]
    end = len(key)
    while (end := key.rfind('.', 0, end)) >= 0:
        prefix = key[: end + 1]
        if prefix in table:
            return table[prefix] + key[end + 1 :]
    raise InputError(f'unknown key {key!r}: not {expected}; is this the right source, with the same kind of backbone?')
