"""Overlapping windows of a map, as convolutions see it."""

from __future__ import annotations

from torch import Tensor


def windows(x: Tensor, rows: int, columns: int, *, side: int, stride: int, padding: tuple[int, int] = (0, 0)) -> Tensor:
    """A map (B, C, h, w) as windows (side, side, B, rows, columns, C), every ``stride`` pixels: a view of one copy.

    It is zero in the ``padding``, so many pixels above and on the left, and below and on the right as far as the
    windows reach, which must be the map's end at least. Where that is nothing, the windows are a view of the map.
    """
    (batch, channels, height, width), (top, left) = x.shape, padding
    below, right = (stride * (count - 1) + side for count in (rows, columns))
    padded = x.permute(0, 2, 3, 1)
    if (top, left, below, right) != (0, 0, height, width):
        padded = x.new_empty(batch, below, right, channels)
        inside = padded[:, top : top + height]
        padded[:, :top] = padded[:, top + height :] = 0
        inside[:, :, :left] = inside[:, :, left + width :] = 0
        inside[:, :, left : left + width] = x.permute(0, 2, 3, 1)
    image, row, column, channel = padded.stride()
    strides = (row, column, image, row * stride, column * stride, channel)
    return padded.as_strided((side, side, batch, rows, columns, channels), strides, padded.storage_offset())
