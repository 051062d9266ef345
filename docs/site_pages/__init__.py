"""Pages of the site that are made when it is built, and what holds for all of its pages. Not part of the wheel.

:mod:`.links` is the standard library alone, as ``tests/test_docs.py`` uses it; the others need the extra ``docs``.
"""
