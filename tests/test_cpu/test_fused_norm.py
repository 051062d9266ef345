"""Norms trained together with what follows them are the parts one after the other."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from tolerances import within
from torch import Tensor, nn

from mmdet_iouquery.cpu.norms import FusedConvNormAct, can_fuse, norm_silu
from mmdet_iouquery.models.layers import LearnableAffine

SIZES = [(9, 8), (1, 5), (12, 12)]


def norm(channels: int = 6) -> nn.BatchNorm2d:
    """With weights of either sign."""
    made = nn.BatchNorm2d(channels)
    nn.init.normal_(made.weight)
    nn.init.normal_(made.bias)
    return made.double()


def random_map(size: tuple[int, int], channels: int = 6) -> Tensor:
    x = torch.randn(2, channels, *size).double()
    return x.contiguous(memory_format=torch.channels_last).requires_grad_()


def assert_same(
    ours: Callable[..., Tensor], parts: Callable[..., Tensor], maps: list[Tensor], modules: list[nn.Module]
) -> None:
    """Output, gradients and the norms' statistics, of functions of maps and modules, to the last digits."""
    copies = copy.deepcopy(modules)
    y, expected = ours(maps, modules), parts(maps, copies)
    grad = torch.randn_like(expected)
    torch.testing.assert_close(y, expected, **within(torch.float64))
    parameters, others = ([p for module in side for p in module.parameters()] for side in (modules, copies))
    gradients = torch.autograd.grad(y, maps + parameters, grad)
    wanted = torch.autograd.grad(expected, maps + others, grad)
    for actual, reference in zip(gradients, wanted):
        torch.testing.assert_close(actual, reference, **within(torch.float64))
    for actual, reference in zip(modules, copies):
        for a, b in zip(actual.buffers(), reference.buffers()):
            torch.testing.assert_close(a, b, **within(torch.float64))


@pytest.mark.parametrize('size', SIZES)
def test_silu_of_one_and_of_a_sum(size: tuple[int, int]) -> None:
    for number in (1, 2):
        assert_same(
            norm_silu,
            lambda maps, norms: F.silu(sum(norm(x) for norm, x in zip(norms, maps))),
            [random_map(size) for _ in range(number)],
            [norm() for _ in range(number)],
        )


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize(('scale', 'bias'), [(1.0, 0.0), (-0.7, 0.3), (0.0, 2.0)])
def test_relu_and_affine(scale: float, bias: float, size: tuple[int, int]) -> None:
    """Of either sign, and where the ReLU's output cannot be told from the result."""
    affine = LearnableAffine().double()
    with torch.no_grad():
        affine.scale.fill_(scale), affine.bias.fill_(bias)

    def fused(maps: list[Tensor], modules: list[nn.Module]) -> Tensor:
        layers: nn.Module = nn.Sequential(nn.Identity(), modules[0], nn.ReLU(), modules[1])
        layers.__class__ = FusedConvNormAct  # as accelerate_training makes it
        return layers(maps[0])

    assert_same(
        fused,
        lambda maps, modules: modules[1](modules[0](maps[0]).relu()),
        [random_map(size)],
        [norm(), affine],
    )


def kept(call: Callable[[], Tensor], given: Tensor) -> int:
    """Numbers kept for the backward pass beside what was given, in maps."""
    storages: dict[int, Tensor] = {}

    def keep(x: Tensor) -> Tensor:
        if x.dim() == 4 and x.shape[-1] > 3:  # no weights
            storages[x.untyped_storage().data_ptr()] = x
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        call()
    storages.pop(given.untyped_storage().data_ptr(), None)
    return sum(x.numel() for x in storages.values())


def test_a_block_keeps_its_convolutions_output_alone() -> None:
    block, x = FusedConvNormAct(8, 8, 3, norm_cfg={'type': 'BN'}, act_cfg={'type': 'SiLU', 'inplace': True}), None
    x = torch.randn(2, 8, 16, 16, requires_grad=True)
    assert kept(lambda: block(x), x) == x.numel()
    rectified = FusedConvNormAct(8, 8, 3, norm_cfg={'type': 'BN'}, act_cfg={'type': 'ReLU'}, learnable_affine=True)
    assert kept(lambda: rectified(x), x) == x.numel()
    one_by_one = nn.Sequential(block[0], block[1], nn.SiLU())
    assert kept(lambda: one_by_one(x), x) == 2 * x.numel()


def test_when_parts_are_fused() -> None:
    x = torch.randn(1, 6, 4, 4)
    assert can_fuse(nn.BatchNorm2d(6), x)
    assert not can_fuse(nn.BatchNorm2d(6).eval(), x)
    assert not can_fuse(nn.BatchNorm2d(6, affine=False), x)
    assert not can_fuse(nn.BatchNorm2d(6, track_running_stats=False), x)
    assert not can_fuse(nn.BatchNorm2d(6, momentum=None), x)
    assert not can_fuse(nn.SyncBatchNorm(6), x)
    assert not can_fuse(nn.BatchNorm2d(6), x.half())
    with torch.no_grad():
        assert not can_fuse(nn.BatchNorm2d(6), x)
