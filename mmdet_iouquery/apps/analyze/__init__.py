"""Looking at queries: what ``tools/analyze_queries.py`` does."""

from .command import analyze

__all__ = ['analyze']
