"""Rotary codes of maps."""

from __future__ import annotations

import math

import pytest
import torch
from tolerances import about, within

from mmdet_iouquery.core import rotary_periods, rotary_tables, rotate


def test_by_hand() -> None:
    """A map of 2 x 4, heads of 8 channels: two periods, 1 and the square root of the base."""
    assert rotary_periods(8, base=100.0).tolist() == pytest.approx([1.0, 10.0])
    cosine, sine = rotary_tables(2, 4, 8, base=100.0, num_prefix=1)
    # token 1 + 7: row 1 of 2, column 3 of 4
    angles = [2 * math.pi * c / period for c in (0.5, 0.75) for period in (1.0, 10.0)]
    assert cosine[8].tolist() == about([math.cos(x) for x in angles * 2], 'unit')
    assert sine[8].tolist() == about([*(-math.sin(x) for x in angles), *map(math.sin, angles)], 'unit')
    # channels 1 and 5 are a pair
    x = torch.zeros(1, 9, 8)
    x[0, 8, 1], x[0, 8, 5] = 2.0, 3.0
    turned = rotate(x, (cosine, sine))[0, 8]
    c, s = math.cos(angles[1]), math.sin(angles[1])
    assert turned[[1, 5]].tolist() == about([2 * c - 3 * s, 3 * c + 2 * s], 'unit')
    assert turned[[0, 2, 3, 4, 6, 7]].eq(0).all()


def test_products_depend_on_the_way_between_two_tokens_and_lengths_stay() -> None:
    query, key = torch.rand(2, 16).double()
    rotary = rotary_tables(6, 6, 16)
    turned = [rotate(x.expand(1, 36, 16), rotary)[0].unflatten(0, (6, 6)) for x in (query, key)]
    products = torch.einsum('ijd,kld->ijkl', *turned)
    for i, j in ((0, 0), (1, 3), (3, 2)):
        torch.testing.assert_close(products[i, j, i + 1, j + 2], products[0, 0, 1, 2], **within('sum'))
    assert (products[0, 0, 2, 1] - products[0, 0, 1, 2]).abs() > 1e-3
    torch.testing.assert_close(turned[0].norm(dim=-1), query.norm().expand(6, 6), **within('unit'))


def test_tokens_without_a_place_are_not_turned_and_a_scale_moves_places_apart() -> None:
    x = torch.rand(2, 3 + 4, 2, 8)
    turned = rotate(x, rotary_tables(2, 2, 8, num_prefix=3))
    assert torch.equal(turned[:, :3], x[:, :3]) and not torch.isclose(turned[:, 3:], x[:, 3:]).all()
    # coordinates of 2 x 2 are half of 1; those of the corners of 4 x 4 are 0.75
    scaled = rotary_tables(2, 2, 8, scale=torch.tensor([1.5]))
    for table, other in zip(scaled, rotary_tables(4, 4, 8)):
        torch.testing.assert_close(table, other[[0, 3, 12, 15]])


def test_channels_must_be_a_multiple_of_four() -> None:
    with pytest.raises(ValueError, match='needs head_dims divisible by 4, got 6'):
        rotary_tables(2, 2, 6)
