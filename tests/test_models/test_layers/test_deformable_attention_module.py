"""Deformable attention around a box: where it reads and with what weight, by maps that tell the place they are read at.

The maps' tokens are the coordinates of their own centres. Bilinear interpolation keeps a linear function, so what is
read between the outermost centres of a map is the location itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from tolerances import about, within
from torch import Tensor

from mmdet_iouquery.errors import InputError
from mmdet_iouquery.models.layers import DeformableAttention
from mmdet_iouquery.structures import Memory

BOX = (0.5, 0.4, 0.2, 0.4)
"""Half sizes 0.1 and 0.2: from 0.4 to 0.6 across and from 0.2 to 0.6 down."""


def reading(
    heads: int = 1, levels: int = 1, points: int | Sequence[int] = 1, dims: int = 4, **settings: Any
) -> DeformableAttention:
    """Hands through what it reads, and looks at the centre of the box, at every point as much."""
    attention = DeformableAttention(dims, heads, levels, points, **settings).double()
    with torch.no_grad():
        for projection in (attention.value_proj, attention.output_proj):
            if isinstance(projection, torch.nn.Linear):
                projection.weight.copy_(torch.eye(dims))
        attention.sampling_offsets.bias.zero_()
    return attention


def coordinates(*shapes: tuple[int, int], batch: int = 1, repeat: int = 1) -> Memory:
    """Tokens (x, y, 1, level) of each level, ``repeat`` times side by side."""
    tokens = []
    for level, (height, width) in enumerate(shapes):
        for row in range(height):
            for column in range(width):
                tokens.append([(column + 0.5) / width, (row + 0.5) / height, 1.0, float(level)] * repeat)
    return Memory(torch.tensor(tokens, dtype=torch.float64).expand(batch, -1, -1), shapes)


def boxes(*rows: Sequence[float]) -> Tensor:
    """One image's (1, Q, 4)."""
    return torch.tensor([rows], dtype=torch.float64)


def query(number: int = 1, dims: int = 4, batch: int = 1) -> Tensor:
    return torch.randn(batch, number, dims, dtype=torch.float64)


def set_offsets(attention: DeformableAttention, offsets: Sequence) -> None:
    """(H, V, P, 2) or (H, S, 2), the same for every query."""
    with torch.no_grad():
        attention.sampling_offsets.bias.copy_(torch.tensor(offsets, dtype=torch.float64).flatten())


def set_shares(attention: DeformableAttention, shares: Sequence) -> None:
    """Attention weights (H, V, P), the same for every query; each head's sum to 1."""
    with torch.no_grad():
        attention.attention_weights.bias.copy_(torch.tensor(shares, dtype=torch.float64).log().flatten())


@pytest.mark.parametrize(
    ('points', 'offset', 'position'),
    [
        (4, (1.0, 0.0), (0.525, 0.4)),  # a quarter of the half width
        (4, (4.0, 0.0), (0.6, 0.4)),  # the right edge
        (4, (0.0, -4.0), (0.5, 0.2)),  # the upper edge
        (4, (2.0, 1.0), (0.55, 0.45)),
        (4, (-8.0, 6.0), (0.3, 0.7)),  # two half sizes to the left, one and a half below
        (2, (1.0, -2.0), (0.55, 0.2)),
        (1, (1.0, 1.0), (0.6, 0.6)),  # the lower right corner
        (1, (0.5, -0.25), (0.55, 0.35)),
    ],
)
def test_offset_p_moves_a_point_by_p_of_the_number_of_points_half_sizes(
    points: int, offset: tuple[float, float], position: tuple[float, float]
) -> None:
    attention = reading(points=points)
    set_offsets(attention, [[[offset] * points]])
    read = attention(query(), boxes(BOX), coordinates((8, 10)))
    assert read[0, 0].tolist() == about([*position, 1.0, 0.0], torch.float64)


def test_gradients_of_a_place_to_its_box() -> None:
    """The place moves with the centre one to one, and by p / P / 2 with the size."""
    attention, box = reading(points=4), boxes(BOX).requires_grad_()
    set_offsets(attention, [[[(3.0, -2.0)] * 4]])
    x, y = attention(query(), box, coordinates((8, 10)))[0, 0, :2]
    (of_x,), (of_y,) = (torch.autograd.grad(coordinate, box, retain_graph=True) for coordinate in (x, y))
    assert of_x[0, 0].tolist() == pytest.approx([1.0, 0.0, 0.375, 0.0])
    assert of_y[0, 0].tolist() == pytest.approx([0.0, 1.0, 0.0, -0.25])


def test_offsets_and_weights_are_laid_out_by_head_level_and_point() -> None:
    """Entry ((h V + v) P + p) of either, an offset's x before its y, and the same for every level's map."""
    heads, levels, points = 2, 3, 4
    attention = reading(heads, levels, points, dims=8)
    offsets, scores = torch.randn(heads, levels, points, 2).double(), torch.randn(heads, levels, points).double()
    with torch.no_grad():
        attention.sampling_offsets.bias.copy_(offsets.flatten())
        attention.attention_weights.bias.copy_(scores.flatten())
    around = boxes(BOX, (0.3, 0.7, 0.1, 0.6))
    locations, weights, numbers = attention.sampling(query(2, 8), around, coordinates((4, 6), (2, 3), (1, 2), repeat=2))
    assert numbers == (4, 4, 4)
    locations, weights = (x.unflatten(3, (levels, points)) for x in (locations, weights))
    for q, (cx, cy, w, h) in enumerate(around[0].tolist()):
        expected = torch.stack([cx + offsets[..., 0] * w / 8, cy + offsets[..., 1] * h / 8], dim=-1)
        torch.testing.assert_close(locations[0, q], expected)
        torch.testing.assert_close(weights[0, q], scores.exp() / scores.exp().sum((1, 2), keepdim=True))


def test_weights_of_a_head_sum_to_1_over_levels_and_points() -> None:
    attention = DeformableAttention(8, 2, 3, 4).double()
    torch.nn.init.normal_(attention.attention_weights.weight)
    weights = attention.sampling(query(5, 8), boxes(*[BOX] * 5), coordinates((4, 6), (2, 3), (1, 2), repeat=2)).weights
    torch.testing.assert_close(weights.sum(-1), torch.ones(1, 5, 2).double())
    assert weights.min() > 0
    # not over the points of each level
    of_levels = weights.unflatten(-1, (3, 4)).sum(-1)
    assert (of_levels - of_levels.mean()).abs().max() > 0.1


def test_what_is_read_is_the_weighted_mean_over_levels_and_points() -> None:
    """Shares 0.1 to 0.4 of four points: of level 1 are 0.7, and x is the mean of the four places."""
    attention = reading(levels=2, points=2)
    set_offsets(attention, [[[(0.0, 0.0), (1.0, 0.0)], [(2.0, 0.0), (-2.0, 2.0)]]])
    set_shares(attention, [[[0.1, 0.2], [0.3, 0.4]]])
    read = attention(query(), boxes(BOX), coordinates((8, 10), (4, 5)))
    x = 0.1 * 0.5 + 0.2 * 0.55 + 0.3 * 0.6 + 0.4 * 0.4
    assert read[0, 0].tolist() == about([x, 0.6 * 0.4 + 0.4 * 0.6, 1.0, 0.7], torch.float64)


def test_each_head_reads_its_own_channels_at_its_own_points() -> None:
    attention = reading(heads=2, dims=8)
    set_offsets(attention, [[[(-1.0, 0.0)]], [[(0.0, 0.5)]]])
    read = attention(query(1, 8), boxes(BOX), coordinates((8, 10), repeat=2))
    assert read[0, 0].tolist() == about([0.4, 0.4, 1.0, 0.0, 0.5, 0.5, 1.0, 0.0], torch.float64)


def test_each_query_reads_by_its_own_content_in_its_own_image() -> None:
    """The offset's x is the query's first number, the second point's score its second: 0 against log 3."""
    attention = reading(points=2)
    with torch.no_grad():
        attention.sampling_offsets.weight[2, 0] = 1.0  # the second point's x
        attention.attention_weights.weight[1, 1] = math.log(3)
    content = torch.tensor([[[2.0, 1.0, 0, 0], [1.0, 0.0, 0, 0]], [[-2.0, 0.0, 0, 0], [0.0, 9.0, 0, 0]]]).double()
    memory = coordinates((8, 10), batch=2)
    memory = memory._replace(tokens=memory.tokens * torch.tensor([1.0, 2.0]).double()[:, None, None])
    read = attention(content, boxes(BOX, BOX).expand(2, -1, -1), memory)
    # points at 0.5 and 0.6, 1/4 and 3/4; at 0.5 and 0.55, 0.4 and 0.5, one half each
    assert read[0, :, 0].tolist() == pytest.approx([0.575, 0.525])
    assert read[1, :, 0].tolist() == pytest.approx([2 * 0.45, 2 * 0.5])


@pytest.mark.parametrize(
    ('centre', 'share'),
    [
        ((0.05, 0.4), 1.0),  # the centre of the first of ten pixels
        ((0.0, 0.4), 0.5),  # a map's outer edge: half of the pixel, and half of the zeros outside
        ((-0.05, 0.4), 0.0),
        ((1.0, 0.4), 0.5),
        ((0.5, 1.0), 0.5),
        ((0.5, 1.0625), 0.0),  # half a pixel of eight beyond
        ((0.0, 0.0), 0.25),
        ((0.025, 1.0), 0.375),
        ((1.7, -3.0), 0.0),
    ],
)
def test_beyond_a_maps_edge_everything_is_zero(centre: tuple[float, float], share: float) -> None:
    read = reading()(query(), boxes((*centre, 0.2, 0.2)), coordinates((8, 10)))
    assert read[0, 0, 2].item() == about(share, torch.float64)


def test_padding_counts_as_zero_behind_the_projections() -> None:
    """Not as the projection of zero, its bias; what is read passes the output's projection once, with its bias."""
    attention = reading(points=2)
    with torch.no_grad():
        attention.value_proj.bias.fill_(0.5)
        attention.output_proj.weight.mul_(2.0)
        attention.output_proj.bias.fill_(10.0)
    memory = coordinates((4, 4))
    memory = memory._replace(padding=(memory.tokens[..., 0] > 0.5))  # the right half: columns 2 and 3
    places = boxes((0.375, 0.375, 0.2, 0.2), (0.5, 0.375, 0.2, 0.2), (0.625, 0.375, 0.2, 0.2))
    ones = attention(query(3), places, memory)[0, :, 2]
    # inside 1 + 0.5; between both columns half of that; in the padding nothing
    assert ones.tolist() == pytest.approx([10 + 2 * 1.5, 10 + 2 * 0.75, 10.0])
    other = memory._replace(tokens=torch.where(memory.padding[..., None], 7.0, memory.tokens))
    content = query(3)
    assert torch.equal(attention(content, places, other), attention(content, places, memory))


def test_boxes_of_an_image_are_read_in_its_part_of_the_map() -> None:
    """Half of the map's width and 0.8 of its height; the other image fills it."""
    attention = reading(points=4)
    set_offsets(attention, [[[(4.0, -4.0)] * 4]])
    memory = coordinates((8, 10), batch=2)._replace(extent=torch.tensor([[0.5, 0.8], [1.0, 1.0]], dtype=torch.float64))
    read = attention(query(1, batch=2), boxes((0.5, 0.5, 0.4, 0.5)).expand(2, -1, -1), memory)
    # in the map (0.25, 0.4, 0.2, 0.4), its upper right corner
    assert read[0, 0, :2].tolist() == about([0.35, 0.2], torch.float64)
    assert read[1, 0, :2].tolist() == about([0.7, 0.25], torch.float64)


@pytest.mark.parametrize(
    ('heads', 'directions'),
    [
        (4, [(1, 0), (0, 1), (-1, 0), (0, -1)]),
        (8, [(1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1)]),
    ],
)
def test_points_start_on_rays_that_end_on_the_edge_of_the_box(heads: int, directions: list[tuple[int, int]]) -> None:
    """Whatever the query, on every level, with equal weights: the p-th of P points p / P of the way to the edge."""
    levels, points = 2, 3
    attention = DeformableAttention(8, heads, levels, points)
    memory = Memory(torch.randn(1, 10, 8), ((2, 4), (1, 2)))
    locations, weights, _ = attention.sampling(torch.randn(1, 1, 8), torch.tensor([[BOX]]), memory)
    locations = locations.unflatten(3, (levels, points))
    assert (weights == 1 / (levels * points)).all()
    for head, (x, y) in enumerate(directions):
        for point in range(points):
            share = (point + 1) / points
            expected = torch.tensor([0.5 + share * x * 0.1, 0.4 + share * y * 0.2]).expand(levels, 2)
            torch.testing.assert_close(locations[0, 0, head, :, point], expected)
    for projection in (attention.value_proj, attention.output_proj):  # Xavier: uniform within sqrt(6 / (8 + 8))
        assert 0.5 < projection.weight.abs().max() <= math.sqrt(6 / 16) and not projection.bias.any()


RAGGED, RAGGED_SHAPES = (3, 1, 2), ((4, 6), (2, 3), (1, 2))


def test_an_offset_is_divided_by_the_number_of_points_on_its_own_level() -> None:
    """One softmax over all six; 3 on the finest level, 1 on the next, 2 on the coarsest."""
    attention = reading(2, 3, RAGGED, dims=8)
    offsets, scores = torch.randn(2, 6, 2).double(), torch.randn(2, 6).double()
    with torch.no_grad():
        attention.sampling_offsets.bias.copy_(offsets.flatten())
        attention.attention_weights.bias.copy_(scores.flatten())
    read = attention.sampling(query(1, 8), boxes(BOX), coordinates(*RAGGED_SHAPES, repeat=2))
    assert read.num_points == RAGGED
    share = torch.tensor([3, 3, 3, 1, 2, 2]).double().reciprocal()[:, None]
    expected = torch.tensor(BOX[:2]).double() + offsets * share * torch.tensor(BOX[2:]).double() / 2
    torch.testing.assert_close(read.locations[0, 0], expected, rtol=0, atol=1e-7)  # the box is single precision
    torch.testing.assert_close(read.weights[0, 0], scores.softmax(-1))


def test_points_of_each_level_read_that_level() -> None:
    """The mean of six equal weights tells level 0 for three of them, 1 for one and 2 for two."""
    attention = reading(points=RAGGED, levels=3)
    set_offsets(attention, [[(3.0, 0.0), (0.0, 0.0), (0.0, 0.0), (1.0, 0.0), (0.0, 0.0), (0.0, 0.0)]])
    read = attention(query(), boxes((0.5, 0.5, 0.2, 0.2)), coordinates((8, 10), (8, 10), (8, 10)))
    assert read[0, 0].tolist() == about([(2 * 0.6 + 4 * 0.5) / 6, 0.5, 1.0, (1 + 2 * 2) / 6], torch.float64)


def test_points_of_each_level_start_at_distances_1_2_and_so_on() -> None:
    attention = DeformableAttention(8, 4, 3, RAGGED)
    offsets = attention.sampling_offsets.bias.view(4, 6, 2)
    for head, direction in enumerate([(1, 0), (0, 1), (-1, 0), (0, -1)]):
        expected = torch.tensor([1.0, 2, 3, 1, 1, 2])[:, None] * torch.tensor(direction)
        torch.testing.assert_close(offsets[head], expected, **within('unit'))


def test_as_many_points_on_every_level_is_one_number_of_them() -> None:
    torch.manual_seed(1)
    single = DeformableAttention(8, 2, 3, 4)
    torch.manual_seed(1)
    several = DeformableAttention(8, 2, 3, [4, 4, 4])
    assert all(torch.equal(a, b) for a, b in zip(single.state_dict().values(), several.state_dict().values()))
    torch.nn.init.normal_(single.sampling_offsets.weight)
    several.load_state_dict(single.state_dict())
    memory = coordinates(*RAGGED_SHAPES, repeat=2)
    memory, around = memory._replace(tokens=memory.tokens.float()), boxes(BOX).float()
    content = torch.randn(1, 1, 8)
    assert torch.equal(single(content, around, memory), several(content, around, memory))


def test_without_projections_the_memory_itself_is_read_and_padding_is_zero() -> None:
    attention = reading(heads=2, dims=8, value_proj=False, output_proj=False, points=1)
    assert {key.split('.')[0] for key in attention.state_dict()} == {'sampling_offsets', 'attention_weights'}
    memory = coordinates((4, 4), repeat=2)
    memory = memory._replace(padding=(memory.tokens[..., 0] > 0.5))
    places = boxes((0.375, 0.375, 0.2, 0.2), (0.5, 0.375, 0.2, 0.2), (0.625, 0.375, 0.2, 0.2))
    read = attention(query(3, 8), places, memory)[0]
    assert read[:, 2].tolist() == pytest.approx([1.0, 0.5, 0.0])
    assert read[0].tolist() == pytest.approx([0.375, 0.375, 1.0, 0.0] * 2)


@pytest.mark.parametrize(
    ('centre', 'pixel'),
    [
        ((0.0, 0.0), (0, 0)),
        ((0.0499, 0.4), (0, 3)),  # 0.499 + 0.5 and 3.2 + 0.5
        ((0.0501, 0.4), (1, 3)),
        ((0.95, 0.95), (9, 7)),  # of a map 10 wide and 8 high, whose last column lies beyond its height
        ((0.85, 0.4), (9, 3)),
        ((1.4, 1.4), (9, 7)),
        ((-0.3, -2.0), (0, 0)),
    ],
)
def test_discrete_sampling_reads_one_pixel(centre: tuple[float, float], pixel: tuple[int, int]) -> None:
    attention = reading(sampling='discrete')
    read = attention(query(), boxes((*centre, 0.2, 0.2)), coordinates((8, 10)))[0, 0]
    assert read.tolist() == pytest.approx([(pixel[0] + 0.5) / 10, (pixel[1] + 0.5) / 8, 1.0, 0.0])


@pytest.mark.parametrize(('height', 'width'), [(8, 10), (10, 8), (9, 9), (1, 5)])
def test_discrete_sampling_reaches_every_pixel_of_any_map(height: int, width: int) -> None:
    """From the point at its upper left corner, as ``int(x * width + 0.5)`` has it."""
    memory = coordinates((height, width))
    corners = [(column / width, row / height, 0.2, 0.2) for row in range(height) for column in range(width)]
    read = reading(sampling='discrete')(query(len(corners)), boxes(*corners), memory)
    torch.testing.assert_close(read, memory.tokens)


def test_discrete_sampling_trains_weights_and_values_but_no_offsets() -> None:
    attention = reading(sampling='discrete', points=(2, 1), levels=2)
    box = boxes(BOX).requires_grad_()
    attention(query(), box, coordinates((8, 10), (4, 5))).square().sum().backward()
    trained = {name.split('.')[0] for name, value in attention.named_parameters() if value.requires_grad}
    assert trained == {'attention_weights', 'value_proj', 'output_proj'}
    assert attention.value_proj.weight.grad.any() and attention.attention_weights.weight.grad.any()
    assert box.grad is None and attention.sampling_offsets.bias.grad is None


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'points': (4, 4)}, r'num_points=\[4, 4\] names the points of 2 levels, but num_levels is 3: give one number'),
        ({'points': (4, 0, 4)}, r'num_points\[1\] must be at least 1 and a whole number, got 0'),
        ({'points': 'many'}, "num_points must be at least 1 and a whole number, got 'many'"),
        ({'sampling': 'nearest'}, r"sampling must be one of \['bilinear', 'discrete'\], got 'nearest'"),
    ],
)
def test_points_that_do_not_fit_the_levels_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        reading(**{'levels': 3, **settings})
