"""The 2-D sine code."""

from __future__ import annotations

import math

import pytest
import torch

from mmdet_iouquery.core import sine_position_encoding_2d


def test_by_hand() -> None:
    code = sine_position_encoding_2d(2, 3, 8, temperature=100.0, column_major=False)
    # token 5 is row 1, column 2; frequencies 1 and 100 ** -0.5
    expected = [f(v * w) for v in (1, 2) for f in (math.sin, math.cos) for w in (1.0, 0.1)]
    assert code[5].tolist() == pytest.approx(expected)


def test_orders_agree_on_squares_and_differ_elsewhere() -> None:
    for height, width, same in ((4, 4, True), (4, 6, False)):
        by_column = sine_position_encoding_2d(height, width, 16)
        by_row = sine_position_encoding_2d(height, width, 16, column_major=False)
        assert torch.equal(by_column, by_row) is same


def test_column_major_enumerates_columns() -> None:
    code = sine_position_encoding_2d(2, 3, 8, temperature=100.0)
    # its row 3 is column 1, row 1
    expected = [f(v * w) for v in (1, 1) for f in (math.sin, math.cos) for w in (1.0, 0.1)]
    assert code[3].tolist() == pytest.approx(expected)


def test_width_must_be_a_multiple_of_four() -> None:
    with pytest.raises(ValueError, match='divisible by 4, got 10'):
        sine_position_encoding_2d(2, 2, 10)
