"""Version of this package, and of the packages it runs with: the one place that names them.

``setup.py`` reads this file before anything is installed, so it imports the standard library only.

Two families of packages share the import names ``mmengine``, ``mmcv`` and ``mmdet``: OpenMMLab's own releases and the
maintained ``onedl-*`` ones. An environment holds one family or the other, never both: they write the same files.
"""

from __future__ import annotations

from typing import NamedTuple

__version__ = '0.2.0'

REPOSITORY = 'https://github.com/mmdet-iouquery/mmdet_iouquery'

PYTHON_MINIMUM = (3, 9)
TORCH_MINIMUM = '2.6'
"""The first that reads a training's checkpoints without running code that may be in them."""
TORCH_TESTED = '2.13.0'


class Package(NamedTuple):
    """A package, of a family or optional.

    ``allowed`` is the range that is accepted: what the family's own mmdet demands at import, cut where a release is too
    old to carry what this project uses. ``tested`` is the one version that the test suite was run against.
    ``distributions`` are the names it is published under; the first is the one that an install line names.
    """

    module: str
    distributions: tuple[str, ...]
    allowed: str
    tested: str

    @property
    def requirement(self) -> str:
        """The range as a requirement, e.g. ``mmengine>=0.10.6,<1.0``."""
        return f'{self.distributions[0]}{self.allowed}'

    @property
    def pin(self) -> str:
        """The tested version as a requirement, e.g. ``mmengine==0.10.7``."""
        return f'{self.distributions[0]}=={self.tested}'


FAMILIES: dict[str, tuple[Package, ...]] = {
    'onedl': (
        Package('mmengine', ('onedl-mmengine',), '>=0.10.8,<1.0', '0.10.12'),
        Package('mmcv', ('onedl-mmcv',), '>=2.3,<3.0', '2.3.6'),
        Package('mmdet', ('onedl-mmdetection',), '>=3.4,<4.0', '3.5.1'),
    ),
    'openmmlab': (
        Package('mmengine', ('mmengine', 'mmengine-lite'), '>=0.10.6,<1.0', '0.10.7'),
        Package('mmcv', ('mmcv-lite', 'mmcv', 'mmcv-full'), '>=2.0.0,<2.2', '2.1.0'),
        Package('mmdet', ('mmdet',), '>=3.2,<4.0', '3.3.0'),
    ),
}

FASTER_COCO_EVAL = Package('faster_coco_eval', ('faster-coco-eval',), '>=1.7.2,<2.0', '1.8.0')
"""Optional: evaluates boxes."""

PYTHON_MINIMUM_OF_FAMILY = {'onedl': (3, 10), 'openmmlab': (3, 9)}
