"""Norms trained together with what follows them are the parts one after the other."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from mmdet.models.backbones.resnet import BasicBlock
from torch import Tensor, nn

from mmdet_iouquery.models.backbones.resnet_vd import Stem, VdBasicBlock
from mmdet_iouquery.models.layers import (
    ConvNormAct,
    WinogradConv2d,
    can_fuse,
    norm_relu_conv,
    norm_relu_pool,
    norm_silu,
)

SIZES = [(9, 8), (1, 5), (12, 12)]


def norm(channels: int = 6) -> nn.BatchNorm2d:
    """With weights of either sign."""
    made = nn.BatchNorm2d(channels)
    nn.init.normal_(made.weight)
    nn.init.normal_(made.bias)
    return made.double()


def picture(size: tuple[int, int], channels: int = 6) -> Tensor:
    x = torch.randn(2, channels, *size).double()
    return x.contiguous(memory_format=torch.channels_last).requires_grad_()


def assert_same(
    ours: Callable[..., Tensor], parts: Callable[..., Tensor], maps: list[Tensor], modules: list[nn.Module]
) -> None:
    """Output, gradients and the norms' statistics, of functions of maps and modules, to the last digits."""
    copies = copy.deepcopy(modules)
    y, expected = ours(maps, modules), parts(maps, copies)
    grad = torch.randn_like(expected)
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)
    parameters, others = ([p for module in side for p in module.parameters()] for side in (modules, copies))
    found = torch.autograd.grad(y, maps + parameters, grad)
    wanted = torch.autograd.grad(expected, maps + others, grad)
    for one, other in zip(found, wanted):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)
    for one, other in zip(modules, copies):
        for a, b in zip(one.buffers(), other.buffers()):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize('size', SIZES)
def test_silu_of_one_and_of_a_sum(size: tuple[int, int]) -> None:
    for number in (1, 2):
        assert_same(
            norm_silu,
            lambda maps, norms: F.silu(sum(norm(x) for norm, x in zip(norms, maps))),
            [picture(size) for _ in range(number)],
            [norm() for _ in range(number)],
        )


@pytest.mark.usefixtures('filtered_small_maps')
@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize(
    ('kind', 'channels', 'stride'), [(nn.Conv2d, 6, 2), (WinogradConv2d, 128, 1), (WinogradConv2d, 64, 2)]
)
def test_relu_and_convolution(kind: type[nn.Conv2d], channels: int, stride: int, size: tuple[int, int]) -> None:
    conv = kind(channels, channels, 3, stride=stride, padding=1, bias=False).double()
    assert_same(
        lambda maps, modules: norm_relu_conv(*maps, *modules),
        lambda maps, modules: modules[1](F.relu(modules[0](maps[0]))),
        [picture(size, channels)],
        [norm(channels), conv],
    )


@pytest.mark.parametrize('size', SIZES)
def test_relu_and_pooling(size: tuple[int, int]) -> None:
    """Also where a weight is negative, and the smallest number of a window is the largest after the norm."""
    assert_same(
        lambda maps, norms: norm_relu_pool(*maps, *norms),
        lambda maps, norms: F.max_pool2d(F.relu(norms[0](maps[0])), 3, 2, 1),
        [picture(size)],
        [norm()],
    )


def test_a_frozen_convolution_gets_no_gradient() -> None:
    conv = nn.Conv2d(6, 4, 1, bias=False).double().requires_grad_(False)
    x = picture((4, 4))
    norm_relu_conv(x, norm(), conv).sum().backward()
    assert conv.weight.grad is None and x.grad is not None


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
    block, x = ConvNormAct(8, 8, 3, norm_cfg={'type': 'BN'}, act_cfg={'type': 'SiLU', 'inplace': True}), None
    x = torch.randn(2, 8, 16, 16, requires_grad=True)
    assert kept(lambda: block(x), x) == x.numel()
    one_by_one = nn.Sequential(block[0], block[1], nn.SiLU())
    assert kept(lambda: one_by_one(x), x) == 2 * x.numel()


def test_a_stem_keeps_a_map_for_each_convolution() -> None:
    """And what is pooled: the numbers, their places and ReLU's, a quarter of a map each."""

    def unit(*channels: int) -> list[nn.Module]:
        return [nn.Conv2d(*channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels[1]), nn.ReLU(inplace=True)]

    parts = [*unit(3, 8), *unit(8, 8), *unit(8, 8), nn.MaxPool2d(3, 2, 1)]
    x = torch.randn(2, 3, 16, 16)
    size = 2 * 8 * 16 * 16
    assert kept(lambda: Stem(*parts)(x), x) == 3 * size + 3 * size // 4
    assert kept(lambda: nn.Sequential(*parts)(x), x) == 6 * size + size // 4


@pytest.mark.parametrize('stride', [1, 2])
def test_a_block_is_mmdets(stride: int) -> None:
    """Numbers, gradients and statistics; and it keeps a map less: what its second convolution is given."""

    shortcut = nn.Sequential(nn.Conv2d(8, 8, 1, stride=stride, bias=False), nn.BatchNorm2d(8))
    block, x = VdBasicBlock(8, 8, stride=stride, downsample=shortcut).double(), picture((8, 8), 8)
    assert_same(
        lambda maps, blocks: blocks[0](maps[0]),
        lambda maps, blocks: BasicBlock.forward(blocks[0], maps[0]),
        [x],
        [block],
    )
    size = 2 * 8 * (8 // stride) ** 2
    assert kept(lambda: BasicBlock.forward(block, x), x) - kept(lambda: block(x), x) == size


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_a_stem_is_its_parts(dtype: torch.dtype) -> None:
    def unit(*channels: int) -> list[nn.Module]:
        return [nn.Conv2d(*channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels[1]), nn.ReLU(inplace=True)]

    stem = Stem(*unit(3, 8), *unit(8, 8), *unit(8, 8), nn.MaxPool2d(3, 2, 1))
    parts = nn.Sequential(*copy.deepcopy(stem))
    x = torch.randn(2, 3, 16, 16)
    tolerance = 1e-4 if dtype == torch.float32 else 0.05  # three norms' rounding
    for _ in range(2):  # in training, and as prediction then goes by the running statistics
        with torch.autocast('cpu', dtype=torch.bfloat16, enabled=dtype != torch.float32):
            y, expected = stem(x), parts(x)
        assert y.dtype == expected.dtype
        torch.testing.assert_close(y, expected, rtol=tolerance, atol=tolerance)
        if y.requires_grad and stem.training:
            grad = torch.randn_like(y)
            y.backward(grad)
            expected.backward(grad)
            for one, other in zip(stem.parameters(), parts.parameters()):
                assert one.grad.dtype == one.dtype
                bound = (3e-4 if dtype == torch.float32 else 0.1) * other.grad.abs().max().item()
                torch.testing.assert_close(one.grad, other.grad, rtol=0, atol=bound)
        stem.eval()
        parts.eval()


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
