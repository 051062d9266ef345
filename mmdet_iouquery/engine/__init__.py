"""What runs around the models: checkpoints that survive a kill, checks before a run, hooks."""

from . import hooks, logs
from .atomic_backend import AtomicLocalBackend
from .bfloat16_optim_wrapper import BFloat16OptimWrapper
from .flat_cosine import FlatCosineLR, FlatCosineMomentum
from .optim_wrapper_constructor import NoDecayOptimWrapperConstructor

__all__ = [
    'AtomicLocalBackend',
    'BFloat16OptimWrapper',
    'FlatCosineLR',
    'FlatCosineMomentum',
    'NoDecayOptimWrapperConstructor',
    'hooks',
    'logs',
]
