"""Sets in the forms that people have, made COCO: YOLO, Pascal VOC, CSV, exports of Label Studio and CVAT, zips of one.

:mod:`.find` tells the form of a folder, one module for each form reads it into the records of :mod:`.records`,
:mod:`.split` parts it where it is not, :mod:`.write` writes it, and :mod:`.read` is the way through all of them.
"""

from .read import read_data

__all__ = ['read_data']
