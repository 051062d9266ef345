"""Small building blocks that several parts share. Not registered: they are no choices of a config."""

from .conv import ConvNormAct
from .mlp import MLP

__all__ = ['MLP', 'ConvNormAct']
