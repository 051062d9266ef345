"""Several configs trained on the same data with the same seeds, and one table and figure of them.

:mod:`.settings` makes each run's config, :mod:`.recorder` measures inside the run, :mod:`.records` holds what it found,
:mod:`.table` makes the table, and :mod:`.command` is what ``iouquery compare`` runs.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .command import compare

__all__ = ['compare']


def __getattr__(name: str) -> Any:
    """Imported when it is asked for, so that the arguments can be read without it."""
    if name != 'compare':
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    from .command import compare

    return compare
