"""Laws that any part can be held to: those that the shipped parts are tested by.

``check_query_selector(dict(type='MySelector'))`` builds a part as a detector builds it and returns nothing, or raises
:class:`LawError` with the first law that it breaks, what was expected and what came. Every check takes a config or a
built part; some laws, such as that the config stays as it is, can be told of a config alone. Checks run on the CPU in
seconds, need no data, no test runner and no detector, and leave the state of the random generators as it was.

docs/own-parts.md says how to write a part.
"""

from .backbones import check_backbone
from .decoders import check_decoder
from .denoising import check_denoising
from .laws import LawError
from .losses import check_criterion_loss
from .query_selectors import check_query_selector
from .transforms import check_transform

__all__ = [
    'LawError',
    'check_backbone',
    'check_criterion_loss',
    'check_decoder',
    'check_denoising',
    'check_query_selector',
    'check_transform',
]
