"""Detections of any number of images, by an exported file or by a config and a checkpoint: ``iouquery predict``."""
