"""A set in any usual form made COCO: ``tools/data.py``."""
