"""Checkpoints from and for other projects; detectors to share: ``tools/convert_checkpoint.py``, ``tools/hub.py``."""
