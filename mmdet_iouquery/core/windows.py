"""Overlapping windows of a map, as convolutions see it."""

from __future__ import annotations

from torch import Tensor


def windows(x: Tensor, rows: int, columns: int, *, side: int, stride: int, padding: int) -> Tensor:
    """A map (B, C, h, w) as windows (side, side, B, rows, columns, C), every ``stride`` pixels: a view of one copy.

    It is zero in the ``padding`` above and on the left, and below and on the right as far as the windows reach, which
    must be the map's end at least.
    """
    batch, channels, height, width = x.shape
    padded = x.new_empty(batch, *(stride * (count - 1) + side for count in (rows, columns)), channels)
    top, bottom, left, right = padding, padding + height, padding, padding + width
    padded[:, :top] = padded[:, bottom:] = 0
    padded[:, top:bottom, :left] = padded[:, top:bottom, right:] = 0
    padded[:, top:bottom, left:right] = x.permute(0, 2, 3, 1)
    image, row, column, channel = padded.stride()
    strides = (row, column, image, row * stride, column * stride, channel)
    return padded.as_strided((side, side, batch, rows, columns, channels), strides)
