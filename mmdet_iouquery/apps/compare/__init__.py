"""Several configs trained on the same data with the same seeds, and one table and figure of them.

:mod:`.settings` makes each run's config, :mod:`.recorder` measures inside the run, :mod:`.records` holds what it found,
:mod:`.table` makes the table, and :mod:`.command` is the command line of ``tools/compare.py``.
"""

from .command import compare

__all__ = ['compare']
