"""Deformable attention: each back end against a loop in double precision, and the choice among them."""

from __future__ import annotations

import math

import pytest
import torch
from tolerances import within

from mmdet_iouquery.core import choose_backend, multi_scale_deformable_attention
from mmdet_iouquery.core.deformable_attention import BACKENDS, Backend, backends, register_backend

SHAPES = ((5, 3), (2, 4))
OF_TORCH = ('embedding_bag', 'gather', 'grid_sample')


def loop(value: torch.Tensor, locations: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Read pixel by pixel: pixel (i, j) of an (h, w) map is centred at ((j + 0.5) / w, (i + 0.5) / h)."""
    batch, _, heads, dims = value.shape
    out = torch.zeros(batch, locations.shape[1], heads, dims, dtype=value.dtype)
    start = 0
    for level, (h, w) in enumerate(SHAPES):
        for b, q, n, p in torch.cartesian_prod(
            *map(torch.arange, (batch, locations.shape[1], heads, weights.shape[-1]))
        ):
            x, y = (locations[b, q, n, level, p] * torch.tensor([w, h]) - 0.5).tolist()
            for j in (math.floor(x), math.floor(x) + 1):
                for i in (math.floor(y), math.floor(y) + 1):
                    if 0 <= i < h and 0 <= j < w:
                        share = (1 - abs(x - j)) * (1 - abs(y - i))
                        out[b, q, n] += share * weights[b, q, n, level, p] * value[b, start + i * w + j, n]
        start += h * w
    return out.flatten(2)


def arguments(spread: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    value = torch.randn(2, 23, 2, 3, dtype=torch.float64)
    locations = torch.rand(2, 4, 2, 2, 3, 2, dtype=torch.float64) * (1 + 2 * spread) - spread
    weights = torch.rand(2, 4, 2, 2, 3, dtype=torch.float64)
    return value, locations, weights


@pytest.mark.parametrize('backend', OF_TORCH)
@pytest.mark.parametrize('spread', [0.0, 0.5, 1e6], ids=['inside', 'beyond the edges', 'far off'])
def test_values_equal_a_loop(spread: float, backend: str) -> None:
    value, locations, weights = arguments(spread)
    ours = multi_scale_deformable_attention(value, SHAPES, locations, weights, backend=backend)
    torch.testing.assert_close(ours, loop(value, locations, weights), **within(torch.float64))


@pytest.mark.parametrize('backend', OF_TORCH)
@pytest.mark.parametrize('spread', [0.2, 2.0])
def test_gradients_equal_finite_differences(spread: float, backend: str) -> None:
    value, locations, weights = (x[:1, :2] if x.dim() > 4 else x[:1] for x in arguments(spread))
    inputs = tuple(x.clone().requires_grad_() for x in (value, locations, weights))
    assert torch.autograd.gradcheck(
        lambda v, s, a: multi_scale_deformable_attention(v, SHAPES, s, a, backend=backend), inputs
    )


@pytest.mark.parametrize('backend', OF_TORCH)
def test_centre_of_a_pixel_reads_that_pixel(backend: str) -> None:
    value = torch.arange(23.0).view(1, 23, 1, 1)
    locations = torch.tensor([2.5 / 3, 1.5 / 5]).expand(1, 1, 1, 2, 1, 2)
    weights = torch.tensor([1.0, 0.0]).view(1, 1, 1, 2, 1)
    read = multi_scale_deformable_attention(value, SHAPES, locations, weights, backend=backend)
    assert read.item() == pytest.approx(1 * 3 + 2)


def test_gradients_at_pixel_centres_and_edges_equal_grid_samples() -> None:
    """Where the interpolation has a kink there are two slopes, of which both take the right-hand one."""
    shapes = ((4, 2), (1, 1), (1, 8), (2, 1))  # binary fractions, so that places are exact
    value = torch.randn(1, 8 + 1 + 8 + 2, 1, 3, dtype=torch.float64)
    places = torch.cartesian_prod(*[torch.arange(-3, 20, dtype=torch.float64) / 16] * 2)
    locations = places.view(1, -1, 1, 1, 1, 2).repeat(1, 1, 1, 4, 1, 1)
    weights = torch.rand(locations.shape[:-1], dtype=torch.float64)
    out_grad = torch.randn(1, len(places), 3, dtype=torch.float64)
    results = []
    for backend in ('embedding_bag', 'grid_sample'):
        inputs = tuple(x.clone().requires_grad_() for x in (value, locations, weights))
        read = multi_scale_deformable_attention(inputs[0], shapes, *inputs[1:], backend=backend)
        results.append((read.detach(), *torch.autograd.grad(read, inputs, out_grad)))
    for ours, theirs in zip(*results):
        torch.testing.assert_close(ours, theirs, **within(torch.float64))


@pytest.mark.parametrize('backend', OF_TORCH)
def test_levels_may_have_different_numbers_of_points(backend: str) -> None:
    """A level's further points change nothing where they weigh nothing."""
    value, locations, weights = arguments(0.2)
    weights[..., 1, 2:] = 0
    flat = torch.cat([locations[..., 0, :, :], locations[..., 1, :2, :]], dim=3)
    shares = torch.cat([weights[..., 0, :], weights[..., 1, :2]], dim=3)
    ours = multi_scale_deformable_attention(value, SHAPES, flat, shares, num_points=(3, 2), backend=backend)
    torch.testing.assert_close(ours, loop(value, locations, weights), **within(torch.float64))


@pytest.mark.parametrize('backend', OF_TORCH)
def test_discrete_sampling_reads_one_pixel(backend: str) -> None:
    """The pixel is ``int(x * width + 0.5)``, held inside the map; on maps that are no squares, too."""
    value, locations, weights = arguments(0.5)
    expected = torch.zeros(2, 4, 2, 3, dtype=torch.float64)
    start = 0
    for level, (h, w) in enumerate(SHAPES):
        for b, q, n, p in torch.cartesian_prod(*map(torch.arange, (2, 4, 2, 3))):
            x, y = locations[b, q, n, level, p].tolist()
            column, row = min(max(int(x * w + 0.5), 0), w - 1), min(max(int(y * h + 0.5), 0), h - 1)
            expected[b, q, n] += weights[b, q, n, level, p] * value[b, start + row * w + column, n]
        start += h * w
    inputs = [x.requires_grad_() for x in (value, locations, weights)]
    ours = multi_scale_deformable_attention(value, SHAPES, locations, weights, sampling='discrete', backend=backend)
    torch.testing.assert_close(ours, expected.flatten(2), **within(torch.float64))
    of_value, of_locations, of_weights = torch.autograd.grad(ours.sum(), inputs, allow_unused=True)
    assert of_locations is None or not of_locations.any()
    # each point adds its weight to one pixel's channels
    assert of_value.sum().item() == pytest.approx(3 * weights.sum().item())
    assert of_weights.shape == weights.shape and of_weights.abs().min() > 0


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('backend', OF_TORCH)
def test_half_precision_values(dtype: torch.dtype, backend: str) -> None:
    """Places stay in single precision: the result is within a few roundings of the exact one."""
    value, locations, weights = (x.float() for x in arguments(0.2))
    weights = weights.flatten(3).softmax(-1).view_as(weights)
    ours = multi_scale_deformable_attention(value.to(dtype), SHAPES, locations, weights, backend=backend)
    assert ours.dtype == dtype
    exact = loop(value.to(dtype).double(), locations.double(), weights.double())
    # shares, products and the sum are each rounded once, by at most that much of the largest value
    assert (ours.double() - exact).abs().max() <= within(dtype, roundings=3)['rtol'] * value.abs().max()


@pytest.mark.parametrize('backend', OF_TORCH)
def test_places_that_are_no_numbers_give_no_number_and_break_nothing(backend: str) -> None:
    value, locations, weights = arguments(0.2)
    locations[0, 0, 0, 0, 0, 0] = math.nan
    locations[1, 1, 1, 1, 1] = math.inf
    ours = multi_scale_deformable_attention(value, SHAPES, locations, weights, backend=backend)
    rest = torch.ones_like(ours, dtype=torch.bool)
    rest[0, 0, :3] = rest[1, 1, 3:] = False
    keep = torch.isfinite(loop(value, locations.nan_to_num(0.5, 0.5, 0.5), weights)) & rest
    torch.testing.assert_close(ours[keep], loop(value, locations.nan_to_num(0.5, 0.5, 0.5), weights)[keep])


def test_the_fastest_that_runs_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, cuda, other = torch.device('cpu'), torch.device('cuda'), torch.device('mps')
    assert choose_backend(cpu, [4, 4]) == 'embedding_bag' and choose_backend(other, [4]) == 'grid_sample'
    monkeypatch.setattr(backends, 'BACKENDS', dict(BACKENDS))
    backends.BACKENDS['triton'] = BACKENDS['triton']._replace(missing=lambda device: 'none here')
    register_backend('mmcv', Backend(BACKENDS['grid_sample'].attend, can=lambda points, _: len(set(points)) == 1))
    assert choose_backend(cuda, [4, 4]) == 'mmcv' and choose_backend(cuda, [4, 3]) == 'grid_sample'
    backends.BACKENDS['triton'] = BACKENDS['grid_sample']
    assert choose_backend(cuda, [4, 3], 'discrete') == 'triton'
    assert choose_backend(cuda, [4], name='grid_sample') == 'grid_sample'
    monkeypatch.setattr(torch.compiler, 'is_exporting', lambda: True, raising=False)
    assert choose_backend(cpu, [4, 4]) == choose_backend(cpu, [4, 4], name='embedding_bag') == 'grid_sample'


@pytest.mark.parametrize('backend', [None, *OF_TORCH])
@pytest.mark.parametrize('grad', [False, True])
def test_a_trace_computes_the_same_of_other_numbers(backend: str | None, grad: bool) -> None:
    """By operators that other programs know: no function of ours stands in the graph."""

    def attend(*given: torch.Tensor) -> torch.Tensor:
        return multi_scale_deformable_attention(given[0], SHAPES, *given[1:], backend=backend)

    with torch.set_grad_enabled(grad):
        traced = torch.jit.trace(attend, tuple(x.requires_grad_(grad) for x in arguments(0.2)))
    kinds = {node.kind() for node in traced.inlined_graph.nodes()}
    assert {kind.split('::')[0] for kind in kinds} <= {'aten', 'prim'} and 'prim::PythonOp' not in kinds
    others = arguments(0.5)
    torch.testing.assert_close(traced(*others), loop(others[0], *others[1:]), **within(torch.float64))


def test_a_back_end_that_cannot_run_is_refused_with_the_reason() -> None:
    value, locations, weights = arguments(0.2)
    with pytest.raises(ValueError, match=r"'fastest' cannot run on cpu: there is none of that name, but triton, "):
        multi_scale_deformable_attention(value, SHAPES, locations, weights, backend='fastest')
    with pytest.raises(ValueError, match=r"by 'triton' cannot run on cpu: "):
        multi_scale_deformable_attention(value, SHAPES, locations, weights, backend='triton')
