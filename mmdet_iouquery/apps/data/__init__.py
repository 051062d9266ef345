"""A set in any usual form made COCO: ``iouquery data``."""
