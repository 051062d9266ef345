"""mmdet's own tests, run against the installed mmdet with ``mmdet_iouquery`` imported. See ``docs/mmdet-tests.md``.

- ``sources``: where the tests come from, and the folder in which they run
- ``selection``: which are run, which are left out and why, and which adapter stands in for which detector
- ``plugin``: the pytest plugin that is loaded in that run, and only there

``tools/mmdet_tests.py`` is the command. This project's own pytest run collects nothing in here, as no file is called
``test_*.py``.
"""
