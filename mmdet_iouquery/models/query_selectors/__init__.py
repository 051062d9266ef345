"""Query selectors: what the decoder starts from."""

from .iou_aware import ClassScoreQuerySelector, IoUAwareQuerySelector, ScoreTimesIoUQuerySelector
from .learned import LearnedAnchors, LearnedEmbeddings

__all__ = [
    'ClassScoreQuerySelector',
    'IoUAwareQuerySelector',
    'LearnedAnchors',
    'LearnedEmbeddings',
    'ScoreTimesIoUQuerySelector',
]
