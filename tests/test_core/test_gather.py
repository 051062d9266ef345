"""Deformable attention by rows is ``grid_sample``'s, wherever the points lie and whatever the maps are."""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tolerances import within

from mmdet_iouquery.core import choose_backend, multi_scale_deformable_attention

SIZES = st.tuples(st.integers(1, 5), st.integers(1, 5))
LEVELS = st.lists(st.tuples(SIZES, st.integers(1, 4)), min_size=1, max_size=4)
# edges, centres of pixels of these maps, and all around
PLACES = st.sampled_from(['inside', 'around', 'edges', 'centres', 'far off'])


def locations_of(kind: str, shape: tuple[int, ...]) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    uniform = torch.rand(shape, generator=generator)
    if kind == 'inside':
        return uniform
    if kind == 'around':
        return uniform * 3 - 1
    if kind == 'far off':
        return (uniform - 0.5) * 1e6
    if kind == 'edges':
        return (uniform * 3).floor() - 1 + (uniform * 7).floor() % 2  # -1, 0, 1, 2
    return ((uniform * 12).floor() - 2 + 0.5) / 8


@settings(max_examples=150, deadline=None, derandomize=True)
@example([((1, 1), 2), ((1, 5), 1), ((5, 1), 3)], 'edges', 'bilinear', 2)
@example([((1, 1), 1)], 'around', 'bilinear', 3)
@given(LEVELS, PLACES, st.sampled_from(['bilinear', 'discrete']), st.integers(1, 3))
def test_it_equals_grid_sample(levels: list[tuple[tuple[int, int], int]], kind: str, sampling: str, batch: int) -> None:
    shapes, points = zip(*levels)
    torch.manual_seed(sum(points) + batch)
    value = torch.randn(batch, sum(h * w for h, w in shapes), 3, 4)
    locations = locations_of(kind, (batch, 5, 3, sum(points), 2))
    weights = torch.rand(batch, 5, 3, sum(points))
    ours, theirs = (
        multi_scale_deformable_attention(
            value, shapes, locations, weights, num_points=points, sampling=sampling, backend=backend
        )
        for backend in ('gather', 'grid_sample')
    )
    torch.testing.assert_close(ours, theirs, **within(torch.float32))


def test_an_export_has_it_where_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.onnx, 'is_in_onnx_export', lambda: True)
    chosen = [choose_backend(torch.device('cpu'), [4], name=name) for name in (None, 'gather', 'embedding_bag')]
    assert chosen == ['grid_sample', 'gather', 'grid_sample']


@pytest.mark.parametrize('coordinate', [float('nan'), float('inf')])
def test_what_is_no_place_reads_no_token_that_is_not_there(coordinate: float) -> None:
    """Of an odd number of heads, whose rows no overflow brings back into the table."""
    value, weights = torch.randn(1, 4, 3, 2), torch.ones(1, 2, 3, 1)
    locations = torch.full((1, 2, 3, 1, 2), 0.5)
    expected = multi_scale_deformable_attention(value, [(2, 2)], locations, weights, num_points=[1], backend='gather')
    locations[0, 0, 0] = coordinate
    ours = multi_scale_deformable_attention(value, [(2, 2)], locations, weights, num_points=[1], backend='gather')
    torch.testing.assert_close(ours.flatten()[2:], expected.flatten()[2:], rtol=0, atol=0)
    assert ours[0, 0, :2].isnan().all() or (coordinate == float('inf') and not ours[0, 0, :2].any())
