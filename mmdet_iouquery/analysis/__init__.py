"""Looking at what a model does: pictures of its detections beside the ground truth."""

from .draw import Box, View, boxes_of, colour_of, contact_sheet, draw_side_by_side, side_by_side_views
from .draw_run import draw_run

__all__ = [
    'Box',
    'View',
    'boxes_of',
    'colour_of',
    'contact_sheet',
    'draw_run',
    'draw_side_by_side',
    'side_by_side_views',
]
