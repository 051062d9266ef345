"""Checkpoints from and for other projects; detectors to share: ``iouquery convert``, ``iouquery hub``."""
