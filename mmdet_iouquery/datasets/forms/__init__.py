"""Sets in the forms that people have, made COCO: YOLO, Pascal VOC, CSV, exports of Label Studio and CVAT, zips of one.

:mod:`.known_forms` tells the form of a folder, one module for each form reads it into the records of :mod:`.reading`,
:mod:`.split` splits it where it is not, :mod:`.coco_files` writes it, and :mod:`.conversion` is the way through all
of them.
"""

from .conversion import read_data

__all__ = ['read_data']
