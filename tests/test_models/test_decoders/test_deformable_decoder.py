"""RT-DETR's decoder: what its boxes are, what each layer is given, and how far gradients go."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from mmdet.registry import MODELS
from tolerances import within
from torch import Tensor, nn

from mmdet_iouquery.models.decoders import DeformableDecoder
from mmdet_iouquery.structures import Memory, Queries

DIMS, CLASSES, LAYERS, SHAPES = 8, 3, 4, ((4, 6), (2, 3))


def build(**settings: Any) -> DeformableDecoder:
    """As it starts, in double precision: box heads give 0."""
    small = {'num_layers': LAYERS, 'num_heads': 2, 'feedforward_channels': 16, 'num_levels': 2, 'num_points': 3}
    cfg = {'type': 'DeformableDecoder', 'num_classes': CLASSES, 'embed_dims': DIMS, **small, **settings}
    return MODELS.build(cfg).double()


def refining(**settings: Any) -> DeformableDecoder:
    """With box heads that move boxes by what the content is."""
    decoder = build(**settings)
    for head in decoder.bbox_heads:
        nn.init.normal_(head.layers[-1].weight, std=0.3)
    return decoder


def by_constants() -> tuple[DeformableDecoder, Tensor]:
    """Layer i's box head gives row i of the deltas (L, 4), whatever the content, which no gradient of boxes reaches."""
    decoder, deltas = build(), torch.randn(LAYERS, 4, dtype=torch.float64) * 0.5
    for head, delta in zip(decoder.bbox_heads, deltas):
        with torch.no_grad():
            head.layers[-1].bias.copy_(delta)
    return decoder, deltas


def queries(number: int = 5, batch: int = 2, **more: Any) -> Queries:
    content, anchors_unact = (torch.randn(batch, number, width, dtype=torch.float64) for width in (DIMS, 4))
    return Queries(content, anchors_unact, **more)


def memory(batch: int = 2, **more: Any) -> Memory:
    return Memory(torch.randn(batch, 24 + 6, DIMS, dtype=torch.float64), SHAPES, **more)


@pytest.mark.parametrize('training', [True, False])
def test_a_box_is_its_anchor_where_the_head_is_zero(training: bool) -> None:
    """As every decoder starts: in each layer, for logits from -6 to 6."""
    decoder, given = build().train(training), queries()
    given = given._replace(anchors_unact=torch.linspace(-6, 6, 40).double().view(2, 5, 4))
    boxes = decoder(given, memory()).boxes
    assert len(boxes) == (LAYERS if training else 1)
    torch.testing.assert_close(boxes, given.anchors_unact.sigmoid().expand_as(boxes), **within('doubles'))


def test_a_box_is_its_anchor_plus_the_deltas_of_all_layers_so_far() -> None:
    """Added as logits, each head's once: in training every layer's, in prediction those of the last one run."""
    decoder, deltas = by_constants()
    given, read = queries(), memory()
    expected = (given.anchors_unact + deltas.cumsum(0)[:, None, None]).sigmoid()
    torch.testing.assert_close(decoder.train()(given, read).boxes, expected)
    for depth in range(1, LAYERS + 1):
        torch.testing.assert_close(decoder.eval()(given, read, num_layers=depth).boxes, expected[depth - 1 : depth])


def test_a_heads_gradient_comes_from_its_own_boxes_and_the_next_layers() -> None:
    """d box_i / d delta_k = b (1 - b) for k = i and k = i - 1 ("look forward twice"), and nothing for any other."""
    decoder, _ = by_constants()
    boxes = decoder.train()(queries(), memory()).boxes
    biases = [head.layers[-1].bias for head in decoder.bbox_heads]
    for i in range(LAYERS):
        slope = (boxes[i] * (1 - boxes[i])).sum((0, 1)).detach()
        gradients = torch.autograd.grad(boxes[i].sum(), biases, retain_graph=True, allow_unused=True)
        for k, gradient in enumerate(gradients):
            if k in (i, i - 1):
                torch.testing.assert_close(gradient, slope)
            else:
                assert gradient is None or not gradient.any(), (i, k)


def test_which_parts_each_layers_losses_reach() -> None:
    """With heads that depend on the content, through which nothing goes round the detached anchors.

    Boxes of layer i train box heads i - 1 and i alone; its scores train class head i and no box head; both train
    layers 0 to i, as content is not detached.
    """
    decoder = refining().train()
    logits, boxes, _ = decoder(queries(), memory())

    def reached(value: Tensor, parts: nn.ModuleList) -> list[int]:
        layers = []
        for index, module in enumerate(parts):
            gradients = torch.autograd.grad(value.sum(), [*module.parameters()], retain_graph=True, allow_unused=True)
            layers += [index] * any(gradient is not None and bool(gradient.any()) for gradient in gradients)
        return layers

    for i in range(LAYERS):
        before = list(range(i + 1))
        assert reached(boxes[i], decoder.bbox_heads) == before[-2:]
        assert reached(boxes[i], decoder.cls_heads) == []
        assert reached(boxes[i], decoder.layers) == before
        assert reached(logits[i] ** 2, decoder.bbox_heads) == []
        assert reached(logits[i] ** 2, decoder.cls_heads) == [i]
        assert reached(logits[i] ** 2, decoder.layers) == before
        assert reached(logits[i] ** 2, nn.ModuleList([decoder.query_pos_head])) == [0]


def test_the_first_anchors_learn_from_the_first_two_layers_boxes() -> None:
    """Where heads give constants, b (1 - b) from either, and nothing from those after: for anchors that are learned."""
    decoder, _ = by_constants()
    given = queries()
    given.anchors_unact.requires_grad_()
    boxes = decoder.train()(given, memory()).boxes
    for i in range(LAYERS):
        (gradient,) = torch.autograd.grad(boxes[i].sum(), given.anchors_unact, retain_graph=True)
        torch.testing.assert_close(gradient, (boxes[i] * (1 - boxes[i])).detach() * (i < 2))


def given_to(decoder: DeformableDecoder, name: str) -> list[tuple]:
    """What the part of that name of each layer is called with, filled by later calls of the decoder."""
    calls: list[tuple] = []
    for layer in decoder.layers:
        layer.get_submodule(name).register_forward_pre_hook(lambda _, args: calls.append(args))
    return calls


@pytest.mark.parametrize('learned_positions', [False, True])
def test_each_layer_looks_around_the_boxes_of_the_one_before(learned_positions: bool) -> None:
    """They are what is sampled around and what the position code is made of, normalised; learned codes are added."""
    decoder, read = refining().train(), memory()
    position = torch.randn(2, 5, DIMS, dtype=torch.float64) if learned_positions else None
    given, mask = queries(position=position), torch.eye(5, dtype=torch.bool)
    calls, attended, coded = given_to(decoder, ''), given_to(decoder, 'cross_attn'), []
    decoder.query_pos_head.register_forward_pre_hook(lambda _, args: coded.append(args[0]))
    logits, boxes, _ = decoder(given, read, mask)
    anchors = [given.anchors_unact.sigmoid(), *boxes[:-1]]
    for i, (content, query_pos, around, of, hidden) in enumerate(calls):
        torch.testing.assert_close(around, anchors[i])
        torch.testing.assert_close(coded[i], anchors[i])
        code = decoder.query_pos_head(anchors[i])
        torch.testing.assert_close(query_pos, code if position is None else code + position)
        assert of is read and hidden is mask and attended[i][1] is around and attended[i][2] is read
        if i == 0:
            assert content is given.content
        else:  # the content that the predictions of the layer before are made of
            torch.testing.assert_close(decoder.cls_heads[i - 1](content), logits[i - 1])
            delta = decoder.bbox_heads[i - 1](content)
            torch.testing.assert_close((torch.logit(anchors[i - 1]) + delta).sigmoid(), boxes[i - 1])


def test_positions_are_seen_by_queries_and_keys() -> None:
    """Self-attention is handed them beside the content, cross-attention the sum."""
    decoder = build(num_layers=1)
    layer, content, position = decoder.layers[0], *(torch.randn(2, 5, DIMS).double() for _ in range(2))
    around, mask = torch.rand(2, 5, 4).double(), torch.eye(5, dtype=torch.bool)
    self_attended, cross_attended = given_to(decoder, 'self_attn'), given_to(decoder, 'cross_attn')
    layer(content, position, around, memory(), mask)
    ((seen, code, hidden),) = self_attended
    assert seen is content and code is position and hidden is mask
    normed = layer.norm1(content + layer.self_attn(content, position, mask))
    torch.testing.assert_close(cross_attended[0][0], normed + position)


def test_a_layer_adds_three_times_and_norms_after_each() -> None:
    """By hand where attention gives constants and of four hidden units, at 1, -1, 2 and -2, two are on."""
    layer = build(num_layers=1, feedforward_channels=4).layers[0]
    content, added = torch.randn(2, 5, DIMS).double(), torch.randn(3, DIMS).double()
    with torch.no_grad():
        for projection, bias in ((layer.self_attn.out_proj, added[0]), (layer.cross_attn.output_proj, added[1])):
            projection.weight.zero_()
            projection.bias.copy_(bias)
        layer.linear1.weight.zero_()
        layer.linear1.bias.copy_(torch.tensor([1.0, -1.0, 2.0, -2.0]))
        layer.linear2.bias.copy_(added[2])
    given = content, torch.randn(2, 5, DIMS).double(), torch.rand(2, 5, 4).double(), memory(), None

    def norm(x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        return centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()

    hidden = layer.linear2.weight[:, 0] + 2 * layer.linear2.weight[:, 2] + added[2]
    torch.testing.assert_close(layer(*given), norm(norm(norm(content + added[0]) + added[1]) + hidden))
    layer.dropout.p = 1.0  # all that is added is dropped, in training
    torch.testing.assert_close(layer.train()(*given), norm(norm(norm(content))))
    torch.testing.assert_close(layer.eval()(*given), norm(norm(norm(content + added[0]) + added[1]) + hidden))


def test_dropout_is_that_of_the_config() -> None:
    """Of what attention gives, of the hidden units and of what they give; self-attention drops weights as well."""
    layer = build(num_layers=1, dropout=0.3).layers[0]
    widths: list[int] = []
    layer.dropout.register_forward_pre_hook(lambda _, args: widths.append(args[0].shape[-1]))
    content, query_pos = (torch.randn(2, 5, DIMS).double() for _ in range(2))
    layer(content, query_pos, torch.rand(2, 5, 4).double(), memory(), None)
    assert widths == [DIMS, DIMS, 16, DIMS] and layer.dropout.p == layer.self_attn.dropout == 0.3


def test_queries_that_may_not_be_seen_change_nothing() -> None:
    """The last two are hidden from the first three, which are not hidden from them."""
    decoder, given, read = refining().eval(), queries(), memory()
    mask = torch.zeros(5, 5, dtype=torch.bool)
    mask[:3, 3:] = True
    others = [x.clone() for x in given[:2]]
    for x in others:
        x[:, 3:] += 1.0
    ours, changed = decoder(given, read, mask), decoder(Queries(*others), read, mask)
    first = decoder(Queries(*(x[:, :3] for x in given[:2])), read)
    for full, other, few in zip(ours[:2], changed[:2], first[:2]):
        torch.testing.assert_close(other[:, :, :3], full[:, :, :3])
        torch.testing.assert_close(few, full[:, :, :3])
    moved = decoder(Queries(torch.cat([given.content[:, :3] + 1.0, given.content[:, 3:]], 1), given[1]), read, mask)
    assert ((moved.boxes - ours.boxes)[:, :, 3:].abs().amax(-1) > 1e-6).all()


def test_fewer_layers_on_the_same_weights() -> None:
    """Layer ``num_layers``, counted from the first or, negative, back from the last; nothing beyond is run."""
    decoder, given, read = refining(), queries(), memory()
    calls = given_to(decoder, '')
    with torch.no_grad():
        every = decoder.train()(given, read)
        for asked, depth in ((1, 1), (2, 2), (4, 4), (None, 4), (-1, 4), (-2, 3), (-4, 1)):
            calls.clear()
            fewer = decoder.eval()(given, read, num_layers=asked)
            assert len(calls) == depth and fewer.logits.shape == (1, 2, 5, CLASSES)
            assert torch.equal(fewer.logits[0], every.logits[depth - 1])
            assert torch.equal(fewer.boxes[0], every.boxes[depth - 1])
        few = decoder.train()(given, read, num_layers=-2)
    assert torch.equal(few.logits, every.logits[:3]) and torch.equal(few.boxes, every.boxes[:3])
    for wrong in (0, 5, -5):
        with pytest.raises(ValueError, match=rf'num_decoder_layers must lie in \[1, 4\].* got {wrong}'):
            decoder(given, read, num_layers=wrong)


def test_another_number_of_maps_is_refused() -> None:
    with pytest.raises(ValueError, match=r'built for 2 levels, the memory has \(\(4, 6\),\)'):
        build()(queries(), Memory(torch.randn(2, 24, DIMS).double(), SHAPES[:1]))


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'num_heads': 3}, 'embed_dims 8 must be divisible by num_heads 3'),
        ({'dropout': 1.5}, r'dropout must .*1.*, got 1\.5'),
        ({'num_points': 0}, 'num_points must be at least 1 .*, got 0'),
        ({'num_points': [4, 4, 4]}, r'num_points=\[4, 4, 4\] names .* 3 levels, but num_levels is 2: give one number'),
        ({'num_points': [4, 0]}, r'num_points\[1\] must be at least 1 .*, got 0'),
        ({'sampling': 'nearest'}, r"sampling must be one of \['bilinear', 'discrete'\], got 'nearest'"),
        ({'ffn_init': 'zero'}, r"ffn_init must be one of .* got 'zero'"),
        ({'act_cfg': 'SiLU'}, r"act_cfg must be a dict, such as dict\(name=value\), or None, got 'SiLU'"),
        ({'query_pos': 'mlp'}, r"query_pos must be a dict, such as dict\(name=value\), or None, got 'mlp'"),
        ({'query_pos': {'num_layers': 0}}, 'num_layers must be at least 1 .*, got 0'),
        ({'query_pos': {'clamp': 'no'}}, "clamp must be a number .*, got 'no'"),
        ({'query_pos': {'depth': 3}}, r"query_pos has 'depth'; it knows hidden_dims, num_layers, act_cfg, clamp"),
        ({'with_cp': 'no'}, "with_cp must be .* got 'no'"),
        ({'attention_backend': 'fastest'}, "attention_backend.*'fastest'"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**settings)


def test_layers_run_again_for_the_gradient_only_when_asked_and_trained() -> None:
    def runs(with_cp: bool, training: bool) -> tuple[int, Tensor]:
        torch.manual_seed(0)
        decoder = refining(with_cp=with_cp).train(training)
        calls, given, read = given_to(decoder, 'linear1'), queries(), memory()
        decoder(given, read).boxes.sum().backward()
        return len(calls), decoder.layers[0].linear1.weight.grad

    (once, expected), (twice, gradient) = runs(False, True), runs(True, True)
    assert (once, twice, runs(True, False)[0]) == (LAYERS, 2 * LAYERS, LAYERS)
    torch.testing.assert_close(gradient, expected)


def test_weights_start_as_said() -> None:
    """Scores at a probability of 0.01, box heads at 0, the position code's two layers, 4 to 2D to D, by Xavier."""
    decoder = build(embed_dims=64)
    for scores, box in zip(decoder.cls_heads, decoder.bbox_heads):
        assert scores.bias.tolist() == pytest.approx([-math.log(99)] * CLASSES)
        assert [layer.weight.shape for layer in box.layers] == [(64, 64), (64, 64), (4, 64)]
        assert not box.layers[-1].weight.any() and not box.layers[-1].bias.any()
    first, second = decoder.query_pos_head.layers
    assert (first.weight.shape, second.weight.shape) == ((128, 4), (64, 128))
    for layer, width in ((first, 4 + 128), (second, 128 + 64)):
        bound = math.sqrt(6 / width)
        assert 0.98 * bound < layer.weight.abs().max() <= bound


def test_options_reach_every_layer() -> None:
    decoder = build(
        num_points=[3, 1],
        sampling='discrete',
        act_cfg={'type': 'SiLU'},
        query_pos={'hidden_dims': 8, 'num_layers': 3, 'act_cfg': {'type': 'GELU'}, 'clamp': 10.0},
    )
    for layer, head in zip(decoder.layers, decoder.bbox_heads):
        assert layer.cross_attn.num_points == (3, 1) and layer.cross_attn.sampling_mode == 'discrete'
        assert type(layer.act) is nn.SiLU and type(head.act) is nn.SiLU
    assert type(decoder.query_pos_head.act) is nn.GELU and decoder.query_pos_head.clamp == 10.0
    assert [layer.out_features for layer in decoder.query_pos_head.layers] == [8, 8, 8]
