"""Hooks."""

from .augmentation_timetable_hook import AugmentationTimetableHook
from .cpu_hooks import AccelerateTrainingHook, KeepFreedMemoryHook
from .gradient_share_hook import GradientShareHook
from .matching_cost_hook import MatchingCostHook
from .missed_validation_hook import MissedValidationHook
from .non_finite_hook import NonFiniteHook
from .prepare_hook import PrepareForInferenceHook
from .progress_hook import ProgressHook
from .repeatable_hook import RepeatableHook
from .restart_hook import RestartHook
from .schedule_hook import ScheduleHook
from .skipped_pictures_hook import SkippedPicturesHook
from .stop_hook import StopOnSignalHook
from .training_log_hook import TrainingLogHook

__all__ = [
    'AccelerateTrainingHook',
    'AugmentationTimetableHook',
    'GradientShareHook',
    'KeepFreedMemoryHook',
    'MatchingCostHook',
    'MissedValidationHook',
    'NonFiniteHook',
    'PrepareForInferenceHook',
    'ProgressHook',
    'RepeatableHook',
    'RestartHook',
    'ScheduleHook',
    'SkippedPicturesHook',
    'StopOnSignalHook',
    'TrainingLogHook',
]
