"""What only a CUDA machine can show, in one run of at most eight minutes: ``make gpu``, or ``python tests/gpu_checks``.

Each part has a process and a time limit of its own (:mod:`.frame`), so that one that fails, hangs or takes the device's
context with it leaves the others alone. What the parts are stands in ``__main__.py``, what they do in ``parts.py`` and
``trainings.py``; ``carry.py`` brings packages to a machine without network.
"""
