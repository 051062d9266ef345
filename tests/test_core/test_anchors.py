"""Anchors: places, sizes, and what is held off."""

from __future__ import annotations

import pytest
import torch

from mmdet_iouquery.core import grid_anchors
from mmdet_iouquery.core.anchors import INVALID_ANCHOR_UNACT


def test_by_hand_on_a_wide_map() -> None:
    unact, valid = grid_anchors([(1, 2), (1, 1)], grid_size=0.05)
    expected = [[0.25, 0.5, 0.05, 0.05], [0.75, 0.5, 0.05, 0.05], [0.5, 0.5, 0.1, 0.1]]
    torch.testing.assert_close(unact.sigmoid()[0], torch.tensor(expected))
    assert valid.shape == (1, 3, 1) and valid.all()


def test_rows_run_before_columns() -> None:
    unact, _ = grid_anchors([(2, 3)])
    centres = unact.sigmoid()[0, :, :2]
    assert centres[1].tolist() == pytest.approx([0.5, 0.25])
    assert centres[3].tolist() == pytest.approx([1 / 6, 0.75])


def test_border_of_a_fine_map_is_held_off_by_a_finite_value() -> None:
    # 100 tokens a side: the outermost centres lie at 0.005, inside the margin of 0.01
    unact, valid = grid_anchors([(100, 100)])
    valid = valid.view(100, 100)
    assert int(valid.sum()) == 98 * 98 and not valid[0].any() and not valid[:, -1].any()
    assert torch.isfinite(unact).all()
    held_off = unact.view(100, 100, 4)[~valid]
    assert (held_off == INVALID_ANCHOR_UNACT).all() and (held_off.sigmoid() == 1).all()
    assert torch.finfo(torch.float16).max > INVALID_ANCHOR_UNACT


def test_the_margin_itself_is_held_off() -> None:
    """Of 4 x 4 centres at 1/8, 3/8, ... the inner four are within a margin of 1/8; side 1/8 is not, 1/4 is."""
    for grid_size, inner in ((0.125, 0), (0.25, 4), (0.875, 0)):
        _, valid = grid_anchors([(4, 4)], grid_size=grid_size, eps=0.125)
        assert int(valid.sum()) == inner and valid.view(4, 4)[1:3, 1:3].sum() == inner


def test_a_level_too_coarse_for_its_anchor_is_invalid() -> None:
    # 0.05 * 2 ** 5 = 1.6 of the input
    _, valid = grid_anchors([(2, 2)] * 6)
    assert valid.view(6, 4).all(1).tolist() == [True, True, True, True, True, False]


def test_extent_gives_the_images_own_frame() -> None:
    """What lies beyond the image is invalid; inside, centres are those of a map of the image alone."""
    extent = torch.tensor([[0.5, 1.0], [1.0, 1.0]])
    unact, valid = grid_anchors([(2, 4)], extent=extent)
    alone, _ = grid_anchors([(2, 2)])
    assert valid[0].view(2, 4).tolist() == [[True, True, False, False]] * 2 and valid[1].all()
    torch.testing.assert_close(unact[0].view(2, 4, 4)[:, :2], alone.view(2, 2, 4))
    torch.testing.assert_close(unact[1], grid_anchors([(2, 4)])[0][0])
