"""What runs around the models: checkpoints that survive a kill, checks before a run, hooks."""

from . import hooks
from .atomic_backend import AtomicLocalBackend
from .optim_wrapper_constructor import NoDecayOptimWrapperConstructor

__all__ = ['AtomicLocalBackend', 'NoDecayOptimWrapperConstructor', 'hooks']
