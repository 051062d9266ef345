"""What makes training and prediction on CPUs faster, in other ways to compute the same."""

from ..compat import keep_freed_memory
from .prediction import accelerate_prediction
from .training import accelerate_training, restore

__all__ = ['accelerate_prediction', 'accelerate_training', 'keep_freed_memory', 'restore']
