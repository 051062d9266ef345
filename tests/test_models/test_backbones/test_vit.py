"""Plain ViTs and their adapter: any size, what is frozen, what is refused; the authors' numbers: test_golden.py."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from helpers import learning
from mmdet.registry import MODELS
from tolerances import about, within
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmdet_iouquery.errors import InputError

NARROW = {'embed_dims': 32, 'num_heads': 2, 'feedforward_channels': 48, 'depth': 2}
ARCHS = ('tiny', 'dinov3-s', 'dinov3-s+', 'ecvit-tiny')
"""One of each form."""


def build(arch: str = 'tiny', **kwargs: Any) -> Any:
    """A narrow adapter over two blocks."""
    settings = {'out_indices': (0, 1), 'strides': (8, 16), 'size_cfg': NARROW, **kwargs}
    return MODELS.build({'type': 'ViTAdapter', 'arch': arch, **settings})


def build_vit(arch: str = 'tiny', **kwargs: Any) -> Any:
    return MODELS.build({'type': 'VisionTransformer', 'arch': arch, 'size_cfg': NARROW, **kwargs})


# --- any size ---------------------------------------------------------------------------------------------------------

FORMS: dict[str, dict[str, Any]] = {
    'each with a prior': {'prior_channels': 4},
    'each': {},
    'mean, pyramid': {'arch': 'ecvit-tiny', 'tokens': 'mean', 'project': 'coarsest', 'strides': (8, 16, 32)},
    'four scales': {'tokens': 'mean', 'strides': (4, 8, 16, 32), 'prior_channels': 4},
}


@pytest.mark.parametrize('form', FORMS)
def test_any_size_gives_maps_of_its_strides_and_images_are_apart(form: str) -> None:
    model = build(**FORMS[form]).eval()
    for height, width in ((64, 64), (330, 256), (336, 272), (320, 256), (33, 47)):
        images = torch.rand(2, 3, height, width)
        with torch.no_grad():
            maps, alone = model(images), model(images[1:])
        assert [x.shape[2:] for x in maps] == [(-(-height // s), -(-width // s)) for s in model.strides]
        for x, other in zip(maps, alone):
            torch.testing.assert_close(x[1:], other, **within(torch.float32))


@pytest.mark.parametrize('batch', [1, 2])
@pytest.mark.parametrize('form', FORMS)
def test_channels_come_last_as_torch_tells_it_also_of_a_single_image(form: str, batch: int) -> None:
    """By which operators choose how their results lie, the next ones among them."""
    with torch.no_grad():
        maps = build(**FORMS[form])(torch.rand(batch, 3, 64, 96))
    for x in maps:
        _, channels, height, width = x.shape
        assert x.stride() == (channels * height * width, 1, channels * width, channels)


def test_a_patch_that_an_image_ends_in_is_continued_by_zeros() -> None:
    model = build_vit().eval()
    images = torch.rand(1, 3, 40, 56)
    whole = torch.zeros(1, 3, 48, 64)
    whole[:, :, :40, :56] = images
    with torch.no_grad():
        assert torch.equal(model(images)[0], model(whole)[0])


def test_maps_are_the_blocks_tokens_and_the_mean_is_of_all_blocks() -> None:
    """Of an image of one colour tokens differ by their places alone, which without attention they do not see."""
    vit_ = build_vit(out_indices=(0, 1)).eval()
    for block in vit_.blocks:
        nn.init.zeros_(block.attn.proj.weight)
        nn.init.zeros_(block.ffn.layers[1].weight)
    vit_.blocks[1].ffn.layers[1].bias.data.fill_(2.0)
    model = build(tokens='mean').eval()
    model.vit.load_state_dict(vit_.state_dict())
    nn.init.dirac_(model.projections[0][0].weight)
    images = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        patches = vit_.patch_embed(images)
        first, second = vit_(images)
        torch.testing.assert_close(first, patches)
        torch.testing.assert_close(second, patches + 2)
        enlarged = nn.functional.interpolate(patches + 1, scale_factor=2, mode='bilinear')
        norm = model.projections[0].norm
        torch.testing.assert_close(model(images)[0], enlarged / (1 + norm.eps) ** 0.5)


# --- training ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('arch', ARCHS)
def test_from_scratch_all_is_finite_and_all_learns(arch: str) -> None:
    torch.manual_seed(0)
    model = build(arch, prior_channels=4).train()
    model.init_weights()
    maps = model(torch.rand(2, 3, 64, 96))
    sum((x * torch.rand_like(x)).sum() for x in maps).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
    assert all(torch.isfinite(x).all() and x.std() > 0.1 for x in maps)


def test_initial_weights_are_normal() -> None:
    """The authors' are cut at -2 and 2, a hundred deviations away, which cuts nothing."""
    torch.manual_seed(0)
    model = build_vit('dinov3-s+', size_cfg={'depth': 1}).train()
    linears = [module for module in model.modules() if isinstance(module, nn.Linear)]
    for x in (*(linear.weight for linear in linears), model.class_token, model.register_tokens):
        # three standard deviations of as many draws, at least
        assert x.std().item() == pytest.approx(0.02, rel=0.02 if x.numel() > 9999 else 0.1)
        if x.numel() > 9999:  # beyond two deviations lie 4.55 % of a normal distribution
            assert (x.abs() > 0.04).float().mean().item() == pytest.approx(0.0455, rel=0.1)
    assert not any(linear.bias.any() for linear in linears)
    assert {x.item() for scale in (model.blocks[0].scale1, model.blocks[0].scale2) for x in scale.gamma} == {
        torch.tensor(1e-5).item()
    }


def test_keys_have_no_bias_where_there_is_none() -> None:
    """What it holds is neither seen nor learned; with a rotary code it would be seen."""
    images = torch.rand(1, 3, 32, 48)
    for key_bias in (False, True):
        model = build_vit(size_cfg={**NARROW, 'key_bias': key_bias}).eval()
        before = model(images)[0]
        model.blocks[0].attn.qkv.bias.data[32:64] = 3.0
        after = model(images)[0]
        assert torch.equal(before, after) is not key_bias
        after.square().sum().backward()
        gradient = model.blocks[0].attn.qkv.bias.grad
        assert bool(gradient[32:64].any()) is key_bias and gradient[:32].any() and gradient[64:].any()


def test_places_are_rescaled_in_training_alone() -> None:
    torch.manual_seed(0)
    model = build_vit(size_cfg={**NARROW, 'rotary_rescale': 2.0})
    seen: list[Tensor] = []
    model.blocks[0].register_forward_pre_hook(lambda _, args: seen.append(args[1][1][-1]))
    images = torch.rand(1, 3, 16, 48)
    model.train()
    for _ in range(40):
        model(images)
    model.eval()(images)
    # the last column's centre is 2 / 3; the sine of its longest period, the last channel, tells the factor
    factors = torch.stack([sine[-1] for sine in seen]).asin() / (2 * torch.pi * 2 / 3 / model.rotary_periods[3])
    assert factors[-1].item() == about(1.0, 'sum')
    drawn = factors[:-1]
    assert drawn.unique().numel() == 40 and drawn.min() >= 0.5 and drawn.max() <= 2.0
    assert drawn.log2().mean().abs() < 0.3 and drawn.min() < 0.6 and drawn.max() > 1.7


def test_gradients_are_the_same_where_inner_values_are_computed_anew() -> None:
    images, gradients = torch.rand(2, 3, 48, 32), []
    model = build_vit(size_cfg={**NARROW, 'rotary_rescale': 2.0}).train()
    for with_cp in (False, True):
        model.with_cp = with_cp
        model.zero_grad()
        torch.manual_seed(5)
        model(images)[0].square().sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    for ours, others in zip(*gradients):
        torch.testing.assert_close(ours, others)


def test_what_is_frozen_does_not_learn() -> None:
    first, blocks = {'patch_embed', 'register_tokens'}, ['blocks.0', 'blocks.1']
    for frozen_stages, expected in ((-1, {*first, *blocks}), (0, {*blocks}), (1, {'blocks.1'}), (2, set())):
        assert learning(build_vit('ecvit-tiny', frozen_stages=frozen_stages).train()) == expected
    # a block behind the last map is not run: a distributed training would wait for its gradients
    assert learning(build_vit('ecvit-tiny', out_indices=(0,)).train()) == {*first, 'blocks.0'}
    model = build('ecvit-tiny', prior_channels=4, norm_eval=True).train()
    assert not any(module.training for module in model.modules() if isinstance(module, _BatchNorm))


# --- precision --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('arch', ARCHS)
def test_maps_have_the_weights_precision(arch: str) -> None:
    torch.manual_seed(0)
    model = build(arch, prior_channels=4).eval()
    images = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        single = model(images.double())
        with torch.autocast('cpu', torch.bfloat16):
            mixed = model(images)
        halves = {dtype: copy.deepcopy(model).to(dtype)(images) for dtype in (torch.float16, torch.bfloat16)}
    assert {x.dtype for x in single} == {torch.float32}
    for dtype, maps in (*halves.items(), (torch.bfloat16, mixed)):
        for x, exact in zip(maps, single):
            assert x.dtype == dtype
            assert (x.float() - exact).norm() < (0.005 if dtype == torch.float16 else 0.04) * exact.norm()


def test_tokens_stay_in_the_range_of_half_precision() -> None:
    model = build_vit('dinov3-s').eval()
    for block in model.blocks:
        block.scale2.gamma.data.fill_(1e4)
        block.ffn.layers[1].bias.data.fill_(60.0)
    with torch.no_grad():
        (x,) = model.half()(torch.rand(1, 3, 32, 32))
    assert torch.isfinite(x).all()


# --- what there is not ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'arch': 'huge'}, r"^arch must be one of \['tiny', .*'ecvit-s\+'\], got 'huge'$"),
        ({'size_cfg': {'width': 3}}, '^size_cfg has width, which a ViT has not; name some of embed_dims, num_heads, '),
        ({'size_cfg': {'num_heads': 5}}, '^embed_dims 192 must be divisible by num_heads 5$'),
        ({'size_cfg': {'embed_dims': 30, 'num_heads': 5}}, r'30 / 5 = 6, which must be divisible by 4'),
        ({'arch': 'ecvit-s', 'size_cfg': {'patch_size': 14}}, "patch_size 14 .*name 16, or patch_embed='conv'$"),
        ({'size_cfg': {'patch_embed': 'conv2'}}, r"^patch_embed must be one of \['conv', 'pyramid'\]"),
        ({'size_cfg': {'ffn': 'glu'}}, r"^ffn must be one of \['mlp', 'swiglu'\]"),
        ({'size_cfg': {'rotary_rescale': 0.5}}, '^rotary_rescale must be a number of at least 1'),
        ({'out_indices': (3, 7, 12)}, r'^ViT tiny has 12 blocks: .* at most 11, got \(3, 7, 12\)$'),
        ({'out_indices': (7, 3, 11)}, r'out_indices ascend from 0 to at most 11, got \(7, 3, 11\)$'),
        ({'frozen_stages': 13}, '^ViT tiny has 12 blocks: frozen_stages must be at most 12, got 13'),
        ({'out_indices': (10, 11)}, "^tokens='each' takes .* 3 strides, and out_indices names 2; .* tokens='mean'$"),
        ({'strides': (8, 16, 64)}, r'^strides must be some of \[4, 8, 16, 32\], .* got \(8, 16, 64\)$'),
        ({'strides': (32, 16, 8)}, '^strides must be some of .* ascending'),
        ({'tokens': 'sum'}, r"^tokens must be one of \['each', 'mean'\], got 'sum'$"),
        (
            {'project': 'coarsest', 'out_channels': 64},
            "^project='coarsest' leaves .* 192 channels: .*set project='all'",
        ),
        ({'project': 'coarsest', 'prior_channels': 8}, "^project='coarsest' leaves .*set project='all'"),
        ({'prior_channels': 0}, '^prior_channels must be at least 1'),
    ],
)
def test_what_there_is_not_is_refused_with_what_there_is(settings: dict, message: str) -> None:
    with pytest.raises(InputError, match=message), torch.device('meta'):
        MODELS.build({'type': 'ViTAdapter', 'arch': 'tiny', **settings})


def test_weights_of_other_heads_or_periods_are_refused() -> None:
    weights = build_vit().state_dict()
    with pytest.raises(InputError, match=r'with heads of 16 channels and this ViT has 4 of 8; set .*num_heads=2'):
        build_vit(size_cfg={**NARROW, 'num_heads': 4}).load_state_dict(weights)
    with pytest.raises(InputError, match=r'periods up to 31\.6 and this ViT has them up to 1e\+03; set .*rotary_base'):
        build_vit(size_cfg={**NARROW, 'rotary_base': 1e4}).load_state_dict(weights)
