"""Multi-scale deformable attention (Deformable DETR, eq. 3): one function, several back ends."""

from .backends import (
    BACKENDS,
    SAMPLINGS,
    Backend,
    choose_backend,
    multi_scale_deformable_attention,
    register_backend,
    why_not,
)

__all__ = [
    'BACKENDS',
    'SAMPLINGS',
    'Backend',
    'choose_backend',
    'multi_scale_deformable_attention',
    'register_backend',
    'why_not',
]
