"""A set in any usual form made COCO: ``iouquery data``.

Forms are COCO, YOLO, Pascal VOC, CSV, exports of Label Studio and CVAT, and zips of one. :mod:`.known_forms` tells the
form of a folder, one module for each form reads it into the records of :mod:`.reading`, :mod:`.split` splits it where
it is not, :mod:`.coco_files` writes it, and :mod:`.conversion` is the way through all of them.
"""
