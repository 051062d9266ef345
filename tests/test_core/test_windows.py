"""Windows of a map are what torch unfolds."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mmdet_iouquery.core.windows import windows


@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ('size', 'count', 'side', 'stride', 'padding'),
    [
        ((8, 12), (2, 3), 6, 4, (1, 1)),
        ((7, 5), (2, 2), 6, 4, (1, 1)),
        ((9, 6), (5, 3), 3, 2, (1, 1)),
        ((7, 8), (2, 2), 6, 4, (0, 1)),
        ((8, 8), (2, 2), 4, 4, (0, 0)),
        ((1, 1), (1, 1), 3, 2, (1, 1)),
    ],
)
def test_as_unfolded(
    size: tuple[int, int],
    count: tuple[int, int],
    side: int,
    stride: int,
    padding: tuple[int, int],
    layout: torch.memory_format,
) -> None:
    """Of the map padded by zeros as far as the windows reach."""
    x = torch.randn(2, 3, *size).contiguous(memory_format=layout)
    below, right = (stride * (n - 1) + side - before - here for n, before, here in zip(count, padding, size))
    padded = F.pad(x, (padding[1], right, padding[0], below))
    expected = F.unfold(padded, side, stride=stride).view(2, 3, side, side, *count)
    found = windows(x, *count, side=side, stride=stride, padding=padding)
    assert torch.equal(found.permute(2, 5, 0, 1, 3, 4), expected)


def test_nothing_is_copied_where_nothing_is_padded() -> None:
    """Of a part of a map, too."""
    whole = torch.randn(2, 3, 12, 8)
    part = whole[1:, :, 4:]
    found = windows(part, 2, 2, side=4, stride=4)
    assert torch.equal(found[0, 0, 0, :, :, 0], part[0, 0, ::4, ::4])
    part += 1
    assert torch.equal(found[3, 2, 0, :, :, 1], whole[1, 1, 7::4, 2::4])
