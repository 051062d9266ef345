"""The hybrid encoder."""

from __future__ import annotations

import pytest
import torch
from mmdet.registry import MODELS
from tolerances import within
from torch import nn


def build(**kwargs: object) -> nn.Module:
    return MODELS.build(
        {'type': 'HybridEncoder', 'in_channels': (8, 16, 24), 'out_channels': 32, 'feedforward_channels': 48, **kwargs}
    ).eval()


def maps(sizes: tuple = ((12, 20), (6, 10), (3, 5))) -> list[torch.Tensor]:
    return [torch.rand(2, c, *size) for c, size in zip((8, 16, 24), sizes)]


@pytest.mark.parametrize('sizes', [((12, 20), (6, 10), (3, 5)), ((13, 9), (7, 5), (4, 3))], ids=['even', 'odd'])
def test_keeps_the_sizes(sizes: tuple) -> None:
    outputs = build()(maps(sizes))
    assert [tuple(x.shape) for x in outputs] == [(2, 32, *size) for size in sizes]


@pytest.mark.parametrize('layout', [torch.channels_last, torch.contiguous_format])
def test_maps_lie_as_those_given_also_of_a_single_image(layout: torch.memory_format) -> None:
    given = [x[:1].contiguous(memory_format=layout) for x in maps()]
    with torch.no_grad():
        encoded = build().eval()(given)
    for x in encoded:
        assert x.stride() == torch.empty(x.shape).contiguous(memory_format=layout).stride()


def test_images_do_not_mix() -> None:
    model, inputs = build(), maps()
    batched = model(inputs)
    alone = model([x[1:] for x in inputs])
    for a, b in zip(batched, alone):
        torch.testing.assert_close(a[1:], b, **within(torch.float32))


def test_every_level_reaches_every_output() -> None:
    model = build()
    for i in range(3):
        inputs = [x.requires_grad_(j == i) for j, x in enumerate(maps())]
        for output in model(inputs):
            (gradient,) = torch.autograd.grad(output.sum(), inputs[i], retain_graph=True)
            assert gradient.abs().sum() > 0


def test_attention_runs_on_the_coarsest_map_alone_by_default() -> None:
    assert build().encoder_levels == (2,)
    assert build(encoder_levels=(1, -1)).encoder_levels == (1, 2)
    assert len(build(num_encoder_layers=0).encoder) == 0


def test_other_numbers_of_levels() -> None:
    model = MODELS.build({'type': 'HybridEncoder', 'in_channels': (8, 8, 16, 24), 'out_channels': 16}).eval()
    outputs = model([torch.rand(1, c, 16 // 2**i, 16 // 2**i) for i, c in enumerate((8, 8, 16, 24))])
    assert [x.shape[-1] for x in outputs] == [16, 8, 4, 2]


def test_position_order_matters_off_squares_only() -> None:
    columns, rows = build(), build(position_order='row_major')
    rows.load_state_dict(columns.state_dict())
    square = maps(((12, 12), (6, 6), (3, 3)))
    assert all(torch.equal(a, b) for a, b in zip(columns(square), rows(square)))
    assert not torch.equal(columns(maps())[2], rows(maps())[2])


def test_wrong_channels_name_both_sides() -> None:
    with pytest.raises(ValueError, match=r'\(8, 16, 24\) channels and was given \(8, 16, 25\)'):
        build()([torch.rand(1, c, 4, 4) for c in (8, 16, 25)])


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        ({'position_order': 'diagonal'}, "got 'diagonal'"),
        ({'in_channels': (24,)}, 'fuses maps of several scales and was given one'),
        ({'start_level': 2}, 'fuses maps of several scales and was given one'),
        ({'encoder_levels': (3,)}, r'encoder_levels \(3,\) names a level that 3 maps do not have'),
        ({'start_level': 1, 'encoder_levels': (2,)}, r'encoder_levels \(2,\) names a level that 2 maps do not have'),
        ({'num_outs': 2}, 'num_outs must be at least the number of maps used, 3, got 2'),
        ({'num_outs': 0}, 'num_outs must be at least the number of maps used, 3, got 0'),
        ({'num_outs': 1, 'start_level': 1}, 'the number of maps used, 2, got 1'),
        ({'start_level': 3}, 'start_level must be one of the 3 maps of in_channels, got 3'),
        ({'start_level': -1}, 'start_level must be one of the 3 maps of in_channels, got -1'),
    ],
)
def test_wrong_arguments(kwargs: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**kwargs)


def test_norm_and_activation_by_config() -> None:
    model = build(norm_cfg={'type': 'GN', 'num_groups': 4}, act_cfg={'type': 'ReLU'})
    assert not any(isinstance(m, (nn.BatchNorm2d, nn.SiLU)) for m in model.modules())


def test_further_levels_halve_the_coarsest_map_rounding_up() -> None:
    outputs = build(num_outs=5)(maps(((100, 68), (50, 34), (25, 17))))
    assert [tuple(x.shape) for x in outputs] == [
        (2, 32, *size) for size in ((100, 68), (50, 34), (25, 17), (13, 9), (7, 5))
    ]
    assert [tuple(x.shape[-2:]) for x in build(num_outs=4)(maps(((4, 4), (2, 2), (1, 1))))][3] == (1, 1)


def test_further_levels_leave_the_others_alone() -> None:
    without, inputs = build(), maps()
    with_more = build(num_outs=5)
    missing, unexpected = with_more.load_state_dict(without.state_dict(), strict=False)
    assert not unexpected and {key.split('.')[0] for key in missing} == {'extra_convs'}
    for a, b in zip(without(inputs), with_more(inputs)):
        assert torch.equal(a, b)


def test_a_further_level_is_convolution_norm_and_activation_of_the_one_before() -> None:
    model = build(num_outs=5)
    for block in model.extra_convs:  # a norm that does something
        block.norm.running_mean.uniform_(-1, 1)
        block.norm.running_var.uniform_(0.5, 2)
        nn.init.uniform_(block.norm.weight, 0.5, 2)
        nn.init.uniform_(block.norm.bias, -1, 1)
    outputs = model(maps(((13, 9), (7, 5), (4, 3))))
    for block, before, after in zip(model.extra_convs, outputs[2:], outputs[3:]):
        norm = block.norm
        padded = nn.functional.pad(before, (1, 1, 1, 1))
        rows, columns = after.shape[-2:]
        by_hand = torch.empty_like(after)
        for i in range(rows):
            for j in range(columns):
                window = padded[:, :, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
                by_hand[..., i, j] = torch.einsum('bchw,dchw->bd', window, block.conv.weight)
        by_hand = by_hand - norm.running_mean[:, None, None]
        by_hand = by_hand / (norm.running_var + norm.eps).sqrt()[:, None, None]
        by_hand = by_hand * norm.weight[:, None, None] + norm.bias[:, None, None]
        torch.testing.assert_close(after, by_hand * by_hand.sigmoid(), **within(torch.float32))


def test_maps_before_the_start_level_have_no_influence() -> None:
    model = build(start_level=1)
    first, second = maps(), maps()
    second[1:] = first[1:]
    outputs = model(first)
    assert [tuple(x.shape) for x in outputs] == [(2, 32, 6, 10), (2, 32, 3, 5)]
    assert all(torch.equal(a, b) for a, b in zip(outputs, model(second)))
    assert not any(torch.equal(a, b) for a, b in zip(outputs, model([second[0], first[1] + 1, first[2]])))


def test_start_level_equals_an_encoder_of_fewer_maps() -> None:
    late = build(start_level=1, num_outs=4)
    fewer = build(in_channels=(16, 24), num_outs=4)
    fewer.load_state_dict(late.state_dict())
    inputs = maps()
    assert len(late(inputs)) == 4
    assert all(torch.equal(a, b) for a, b in zip(late(inputs), fewer(inputs[1:])))


def test_ignored_maps_still_count_as_given() -> None:
    with pytest.raises(ValueError, match=r'was given \(16, 24\)'):
        build(start_level=1)(maps()[1:])


def test_attention_levels_are_counted_among_the_maps_used() -> None:
    assert build(start_level=1).encoder_levels == (1,)
    assert build(start_level=1, num_outs=5, encoder_levels=(0, -1)).encoder_levels == (0, 1)


def test_tells_what_an_fpn_tells() -> None:
    kwargs = {'in_channels': [8, 16, 24], 'out_channels': 32, 'start_level': 1, 'num_outs': 5}
    ours, fpn = build(**kwargs), MODELS.build({'type': 'FPN', 'add_extra_convs': 'on_output', **kwargs})
    for name in ('out_channels', 'start_level', 'num_outs'):
        assert getattr(ours, name) == getattr(fpn, name)
    assert list(ours.in_channels) == fpn.in_channels
    sizes = ((26, 18), (13, 9), (7, 5))
    assert [x.shape for x in ours(maps(sizes))] == [x.shape for x in fpn(maps(sizes))]


def test_further_levels_draw_no_random_number_before_the_others() -> None:
    torch.manual_seed(1)
    plain = build().state_dict()
    torch.manual_seed(1)
    with_more = build(num_outs=5).state_dict()
    assert list(with_more)[: len(plain)] == list(plain)
    assert all(torch.equal(value, with_more[key]) for key, value in plain.items())
