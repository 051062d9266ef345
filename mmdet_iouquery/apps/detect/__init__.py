"""Detections in some images, printed and drawn: ``iouquery detect``."""
