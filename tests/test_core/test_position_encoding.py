"""The 2-D sine code."""

from __future__ import annotations

import math

import pytest
import torch
from tolerances import about

from mmdet_iouquery.core import (
    sine_anchor_encoding,
    sine_encoding,
    sine_position_encoding_2d,
    sine_token_encoding,
)


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


def test_sine_code_of_numbers_by_hand() -> None:
    code = sine_encoding(torch.tensor([0.0, 0.25]), 4, temperature=100.0)
    assert code[0].tolist() == pytest.approx([0, 1, 0, 1])
    # 2 pi / 4 at frequency 1, then at 100 ** -0.5
    slow = math.pi / 2 / 10
    assert code[1].tolist() == about([1, 0, math.sin(slow), math.cos(slow)], 'unit')


def test_anchor_code_is_y_x_w_h() -> None:
    anchor = torch.tensor([[0.1, 0.2, 0.3, 0.4]])
    code = sine_anchor_encoding(anchor, 16)
    assert code.shape == (1, 32)
    parts = [sine_encoding(torch.tensor([v]), 8) for v in (0.2, 0.1, 0.3, 0.4)]
    torch.testing.assert_close(code, torch.cat(parts, dim=-1))


def test_a_tokens_code_is_that_of_an_anchor_on_it() -> None:
    """So that the dot product of the two codes tells how near they are."""
    codes = sine_token_encoding([(2, 3), (1, 2)], 16, temperature=20.0)
    assert codes.shape == (1, 8, 16)
    # token 5 is row 1, column 2 of the first map; token 7 the second of the other
    for token, centre in ((5, (2.5 / 3, 1.5 / 2)), (7, (1.5 / 2, 0.5))):
        anchor = sine_anchor_encoding(torch.tensor([*centre, 0.1, 0.1]), 16, temperature=20.0)
        torch.testing.assert_close(codes[0, token], anchor[:16])
        similarity = codes[0] @ anchor[:16]
        assert similarity[token] == pytest.approx(8) and (similarity <= 8 + 1e-5).all()


def test_extent_stretches_the_codes() -> None:
    """In an image that covers half the width, the token in its middle has the code of x = 0.5."""
    codes = sine_token_encoding([(1, 2)], 8, extent=torch.tensor([[0.5, 1.0], [1.0, 1.0]]))
    assert codes.shape == (2, 2, 8)
    torch.testing.assert_close(codes[0, 0], sine_anchor_encoding(torch.tensor([0.5, 0.5, 0, 0]), 8)[:8])
    torch.testing.assert_close(codes[1], sine_token_encoding([(1, 2)], 8)[0])


def test_odd_widths_are_refused() -> None:
    with pytest.raises(ValueError, match='even number of channels, got 5'):
        sine_encoding(torch.rand(2), 5)
