"""Adapters of mmdet's detection transformers: the parent when a config names no part, and any part that it names."""

from .ddq import IoUQueryDDQDETR
from .deformable import IoUQueryDeformableDETR, IoUQueryDINO
from .dense import IoUQueryConditionalDETR, IoUQueryDABDETR, IoUQueryDETR

__all__ = [
    'IoUQueryConditionalDETR',
    'IoUQueryDABDETR',
    'IoUQueryDDQDETR',
    'IoUQueryDETR',
    'IoUQueryDINO',
    'IoUQueryDeformableDETR',
]
