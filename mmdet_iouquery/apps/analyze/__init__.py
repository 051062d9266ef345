"""Looking at queries: what ``iouquery analyze`` does."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .command import analyze

__all__ = ['analyze']


def __getattr__(name: str) -> Any:
    """Imported when it is asked for, so that the arguments can be read without it."""
    if name != 'analyze':
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    from .command import analyze

    return analyze
