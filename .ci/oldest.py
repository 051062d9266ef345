"""Print, as requirements of pip's, the oldest versions that the ranges allow: ``python .ci/oldest.py FAMILY``.

Of the family, and of what this package requires always; it has to be installed where this runs.
"""

from __future__ import annotations

import importlib.metadata
import sys

from packaging.requirements import Requirement


def oldest(family: str) -> list[str]:
    """Requirements that begin somewhere, held to where they begin."""
    pins = []
    for line in importlib.metadata.requires('mmdet-iouquery') or []:
        requirement = Requirement(line)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({'extra': extra}) for extra in (family, 'fast')):
            bounds = [clause.version for clause in requirement.specifier if clause.operator == '>=']
            pins += [f'{requirement.name}=={version}' for version in bounds]
    return pins


if __name__ == '__main__':
    print(*oldest(sys.argv[1]))
