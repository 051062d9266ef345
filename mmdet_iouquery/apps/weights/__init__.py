"""Checkpoints from other projects and for them, and detectors to share: ``tools/convert_checkpoint.py``, ``tools/hub.py``."""
