"""Sets of images: finding one in a folder, checking it before training, and what a pipeline names.

Nothing here needs mmdet at import.
"""

from .coco.checks import CocoReport, check_coco, check_config
from .coco.layout import CocoSet, find_coco_set
from .forms import read_data

__all__ = ['CocoReport', 'CocoSet', 'check_coco', 'check_config', 'find_coco_set', 'read_data']
