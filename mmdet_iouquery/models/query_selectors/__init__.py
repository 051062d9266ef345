"""Query selectors: what the decoder starts from."""

from .class_score import ClassScoreQuerySelector
from .iou_aware import IoUAwareQuerySelector
from .learned import LearnedAnchors, LearnedEmbeddings
from .score_times_iou import ScoreTimesIoUQuerySelector

__all__ = [
    'ClassScoreQuerySelector',
    'IoUAwareQuerySelector',
    'LearnedAnchors',
    'LearnedEmbeddings',
    'ScoreTimesIoUQuerySelector',
]
