"""The hybrid encoder."""

from __future__ import annotations

import pytest
import torch
from mmdet.registry import MODELS
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


def test_images_do_not_mix() -> None:
    model, inputs = build(), maps()
    together = model(inputs)
    alone = model([x[1:] for x in inputs])
    for a, b in zip(together, alone):
        torch.testing.assert_close(a[1:], b, rtol=0, atol=1e-5)


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


@pytest.mark.parametrize('kwargs', [{'position_order': 'diagonal'}, {'encoder_levels': (3,)}])
def test_wrong_arguments(kwargs: dict) -> None:
    with pytest.raises(ValueError, match='diagonal|3 maps'):
        build(**kwargs)


def test_norm_and_activation_by_config() -> None:
    model = build(norm_cfg={'type': 'GN', 'num_groups': 4}, act_cfg={'type': 'ReLU'})
    assert not any(isinstance(m, (nn.BatchNorm2d, nn.SiLU)) for m in model.modules())
