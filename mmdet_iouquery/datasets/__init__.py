"""Sets of pictures: finding one in a folder, checking it before training, and making a small one.

Nothing here needs mmdet or scikit-learn at import.
"""

from .checks import CocoReport, check_coco, check_config
from .coco_layout import CocoSet, find_coco_set
from .digits import build_digits

__all__ = ['CocoReport', 'CocoSet', 'build_digits', 'check_coco', 'check_config', 'find_coco_set']
