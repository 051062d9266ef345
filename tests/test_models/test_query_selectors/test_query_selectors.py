"""Selectors: what each chooses, trains and leaves alone."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from mmdet.registry import MODELS
from torch import nn

from mmdet_iouquery.structures import EncoderTarget, Memory

SHAPES, TOKENS, DIMS, CLASSES = ((6, 8), (3, 4)), 60, 16, 3
ENCODER_SELECTORS = ['IoUAwareQuerySelector', 'ClassScoreQuerySelector', 'ScoreTimesIoUQuerySelector']


def build(kind: str, **settings: Any) -> nn.Module:
    return MODELS.build({'type': kind, 'num_classes': CLASSES, 'embed_dims': DIMS, 'num_queries': 10, **settings})


def memory(**more: Any) -> Memory:
    return Memory(torch.randn(2, TOKENS, DIMS, requires_grad=True), SHAPES, **more)


@pytest.mark.parametrize('kind', ENCODER_SELECTORS)
def test_queries_are_the_best_tokens_and_detached(kind: str) -> None:
    selector, given = build(kind), memory()
    selection = selector(given)
    everything = selector(given, num_queries=TOKENS)
    assert selection.token_index.shape == (2, 10)
    # asked for all, the first ten are the same: ranking does not depend on how many are wanted
    assert torch.equal(everything.token_index[:, :10], selection.token_index)
    assert sorted(everything.token_index[0].tolist()) == list(range(TOKENS))
    content, anchors_unact, position = selection.queries[:3]
    assert position is None and not content.requires_grad and not anchors_unact.requires_grad
    torch.testing.assert_close(anchors_unact.sigmoid(), selection.encoder.boxes[0].detach())
    assert selection.encoder.logits.requires_grad and selection.encoder.boxes.requires_grad


@pytest.mark.parametrize('kind', ENCODER_SELECTORS)
def test_a_box_is_its_tokens_grid_anchor_plus_a_delta(kind: str) -> None:
    """Added as logits; 0 as every head starts. Anchors by hand: squares of 0.1 on the finest level, 0.2 on the next."""
    selector, given = build(kind, grid_size=0.1), memory()
    anchors = torch.tensor(
        [
            [(column + 0.5) / width, (row + 0.5) / height, side, side]
            for side, (height, width) in zip((0.1, 0.2), SHAPES)
            for row in range(height)
            for column in range(width)
        ]
    )
    for delta in ([0.0, 0.0, 0.0, 0.0], [0.7, -0.3, 1.5, -2.0]):
        with torch.no_grad():
            selector.bbox_head.layers[-1].bias.copy_(torch.tensor(delta))
        selection = selector(given)
        expected = torch.logit(anchors)[selection.token_index] + torch.tensor(delta)
        torch.testing.assert_close(selection.queries.anchors_unact, expected)
        torch.testing.assert_close(selection.encoder.boxes[0], expected.sigmoid())


def test_grid_anchors_are_those_of_each_images_part_of_the_map() -> None:
    """Of either batch by its own extents: half of the width is the whole of an image's, and what is beyond is none."""
    selector = build('IoUAwareQuerySelector')
    column = torch.cat([(torch.arange(width) + 0.5).repeat(height) / width for height, width in SHAPES])
    for extent in ([[0.5, 1.0], [1.0, 1.0]], [[1.0, 1.0], [0.5, 1.0]]):
        selection = selector(memory(extent=torch.tensor(extent)), num_queries=TOKENS)
        for image, (width, _) in enumerate(extent):
            x, boxes = column[selection.token_index[image]] / width, selection.encoder.boxes[0, image]
            torch.testing.assert_close(boxes[:, 0], torch.where(x < 1, x, 1.0))


@pytest.mark.parametrize('kind', ENCODER_SELECTORS)
def test_tokens_whose_anchor_is_beyond_the_margin_count_as_zeros(kind: str) -> None:
    """With a margin of 0.1, of 6 x 8 tokens the outermost rows and columns, and their boxes are the whole input."""
    selector, given = build(kind, anchor_eps=0.1, grid_size=0.2), memory()
    inside = torch.zeros(6, 8, dtype=torch.bool)
    inside[1:-1, 1:-1] = True
    inside = torch.cat([inside.flatten(), torch.ones(12, dtype=torch.bool)])
    other = given._replace(tokens=torch.where(inside[:, None], given.tokens, 9.0))
    ours, theirs = (selector(memory, num_queries=TOKENS) for memory in (given, other))
    assert torch.equal(ours.encoder.logits, theirs.encoder.logits)
    beyond = ~inside[ours.token_index]
    assert int(beyond.sum()) == 2 * 24 and (ours.encoder.boxes[0][beyond] == 1).all()
    of_zeros = selector.cls_head(selector.memory_norm(selector.memory_proj(torch.zeros(DIMS))))
    torch.testing.assert_close(ours.encoder.logits[0][beyond], of_zeros.expand(2 * 24, -1))


@pytest.mark.parametrize('kind', ENCODER_SELECTORS)
def test_without_a_projection_heads_read_the_tokens_themselves(kind: str) -> None:
    """Which are the content, detached, those beyond the margin as zeros; equal to the identity for a projection."""
    selector, given = build(kind, project=False, anchor_eps=0.1, grid_size=0.2), memory()
    assert not [name for name, _ in selector.named_parameters() if name.startswith('memory_')]
    selection = selector(given, num_queries=TOKENS)
    index = selection.token_index
    inside = torch.zeros(6, 8, dtype=torch.bool)
    inside[1:-1, 1:-1] = True
    inside = torch.cat([inside.flatten(), torch.ones(12, dtype=torch.bool)])
    masked = given.tokens * inside[:, None]
    assert torch.equal(selection.queries.content, masked.gather(1, index[..., None].expand(-1, -1, DIMS)))
    assert not selection.queries.content.requires_grad
    scores = selector.rank_score(selector.cls_head(masked), selector.predict_iou(masked))
    torch.testing.assert_close(scores.sort(descending=True).values, scores.gather(1, index))
    assert (scores.sort(descending=True).values.diff() <= 0).all()


@pytest.mark.parametrize('autocast', [False, True])
@pytest.mark.parametrize('kind', ENCODER_SELECTORS)
def test_gradients_are_those_of_all_tokens_without_keeping_them(kind: str, autocast: bool) -> None:
    """A graph through every token's projection and scores gives the same; ours keeps what was chosen alone."""
    selector, given = build(kind), memory()
    kept = 0

    def count(x: torch.Tensor) -> torch.Tensor:
        nonlocal kept
        of_all = x.dim() > 1 and TOKENS in (x.shape[0], x.shape[1], x.shape[0] // 2)
        kept += of_all and x.data_ptr() != given.tokens.data_ptr()  # the memory itself is there anyway
        return x

    with torch.autocast('cpu', dtype=torch.bfloat16, enabled=autocast):
        with torch.autograd.graph.saved_tensors_hooks(count, lambda x: x):
            selection = selector(given)
        index = selection.token_index[..., None]
        valid = selector._anchors(given)[1].to(given.tokens.dtype)
        tokens = selector.memory_norm(selector.memory_proj(given.tokens * valid))
        logits = selector.cls_head(tokens).gather(1, index.expand(-1, -1, CLASSES))
        iou_logits = selector.predict_iou(tokens)
    assert kept == 0
    ours, theirs = [selection.encoder.logits[0].float()], [logits.float()]
    if iou_logits is not None:
        ours, theirs = (
            [*ours, selection.encoder_target.iou_logits[0].float()],
            [*theirs, iou_logits.gather(1, index[..., 0]).float()],
        )
    wanted = [given.tokens, *selector.memory_proj.parameters(), *selector.cls_head.parameters()]
    gradients, expected = (
        torch.autograd.grad(sum((tensor * (i + tensor.detach())).sum() for i, tensor in enumerate(side)), wanted)
        for side in (ours, theirs)
    )
    for actual, reference in zip(gradients, expected):
        assert reference.abs().max() > 0
        # half precision: sums of bfloat16 products in another order
        tolerance = 0.02 if autocast else 1e-5
        torch.testing.assert_close(actual, reference, rtol=tolerance, atol=tolerance * reference.abs().max().item())


@pytest.mark.parametrize('kind', ENCODER_SELECTORS)
def test_padding_comes_last(kind: str) -> None:
    padding = torch.zeros(2, TOKENS, dtype=torch.bool)
    padding[0, 5:] = True
    index = build(kind)(memory(padding=padding)).token_index
    assert set(index[0, :5].tolist()) == set(range(5)) and (index[0, 5:] >= 5).all()


def test_iou_aware_and_class_score_differ_in_what_they_learn_alone() -> None:
    iou_aware, class_score = (build(kind) for kind in ENCODER_SELECTORS[:2])
    class_score.load_state_dict(iou_aware.state_dict(), strict=True)
    given = memory()
    ours, theirs = iou_aware(given), class_score(given)
    assert torch.equal(ours.token_index, theirs.token_index)
    assert torch.equal(ours.encoder.logits, theirs.encoder.logits)
    assert (ours.encoder_target, theirs.encoder_target) == (EncoderTarget('iou'), EncoderTarget('label'))


@pytest.mark.parametrize('kind', ENCODER_SELECTORS[:2])
def test_tokens_rank_by_their_best_class(kind: str) -> None:
    """Whatever their other classes say: the order is not that of the mean."""
    logits = build(kind)(memory(), num_queries=TOKENS).encoder.logits[0]
    assert (logits.amax(-1).diff(dim=1) <= 1e-6).all() and (logits.mean(-1).diff(dim=1) > 1e-3).any()


def test_score_times_iou_ranks_by_the_product() -> None:
    selector, given = build('ScoreTimesIoUQuerySelector'), memory()
    nn.init.normal_(selector.iou_head.weight, std=2.0)
    selection = selector(given, num_queries=TOKENS)
    product = selection.encoder.logits[0].sigmoid().amax(-1) * selection.encoder_target.iou_logits[0].sigmoid()
    assert (product.diff(dim=1) <= 1e-6).all()
    by_class = build('ClassScoreQuerySelector')
    by_class.load_state_dict({k: v for k, v in selector.state_dict().items() if not k.startswith('iou_head')})
    assert not torch.equal(by_class(given, num_queries=TOKENS).token_index, selection.token_index)


@pytest.mark.parametrize('kind', ENCODER_SELECTORS)
def test_without_classes_one_score_a_token_tells_objects(kind: str) -> None:
    selector = build(kind, class_agnostic=True)
    selection = selector(memory(), num_queries=TOKENS)
    assert selector.cls_head.bias.tolist() == pytest.approx([-math.log(99)])
    assert selection.encoder.logits.shape == (1, 2, TOKENS, 1)
    assert selection.encoder_target.class_agnostic and selection.encoder_target.score == selector.score_target
    if selection.encoder_target.iou_logits is None:
        assert (selection.encoder.logits[0, ..., 0].diff(dim=1) <= 1e-6).all()


@pytest.mark.parametrize('kind', ENCODER_SELECTORS)
def test_pairs_of_token_and_class_rank_by_their_own_score(kind: str) -> None:
    """The tokens of the best forty of 60 x 3 pairs, in their order: a token comes as often as it has such classes."""
    selector, given = build(kind, rank='token_class'), memory()
    nn.init.normal_(selector.cls_head.weight, std=1.0)
    selection = selector(given, num_queries=40)
    tokens = selector._project(given.tokens, selector._anchors(given)[1].float())
    score = selector._classify(tokens).sigmoid()
    if kind == 'ScoreTimesIoUQuerySelector':
        score = score * selector.predict_iou(tokens).sigmoid().unsqueeze(-1)
    for image in range(2):
        pairs = sorted(
            ((score[image, token, label].item(), token) for token in range(TOKENS) for label in range(CLASSES)),
            reverse=True,
        )
        assert selection.token_index[image].tolist() == [token for _, token in pairs[:40]]
    assert all(len(set(index.tolist())) < 40 for index in selection.token_index)  # or the test could not tell
    assert torch.equal(selection.encoder.boxes[0], selection.queries.anchors_unact.sigmoid())


def test_pairs_in_padding_come_last() -> None:
    padding = torch.zeros(2, TOKENS, dtype=torch.bool)
    padding[0, 3:] = True
    selector = build('IoUAwareQuerySelector', rank='token_class')
    index = selector(memory(padding=padding)).token_index[0].tolist()
    assert sorted(index[:9]) == [0, 0, 0, 1, 1, 1, 2, 2, 2] and index[9] >= 3
    # all pairs where there are fewer than the queries asked for
    assert selector(memory(), num_queries=1000).token_index.shape == (2, TOKENS * CLASSES)


def test_activation_of_the_box_head() -> None:
    selector = build('IoUAwareQuerySelector', act_cfg={'type': 'SiLU'})
    first, second, third = selector.bbox_head.layers
    nn.init.normal_(third.weight)
    tokens, silu = torch.randn(5, DIMS), nn.functional.silu
    torch.testing.assert_close(selector.bbox_head(tokens), third(silu(second(silu(first(tokens))))))


def test_the_encoders_heads_start_as_said() -> None:
    """Scores at a probability of 0.01, box heads of three layers at 0."""
    selector = build('IoUAwareQuerySelector')
    assert selector.cls_head.bias.tolist() == pytest.approx([-math.log(99)] * CLASSES)
    assert [layer.weight.shape for layer in selector.bbox_head.layers] == [(DIMS, DIMS), (DIMS, DIMS), (4, DIMS)]
    assert not selector.bbox_head.layers[-1].weight.any() and not selector.bbox_head.layers[-1].bias.any()


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'grid_size': 1.5}, r'grid_size must .*1.*, got 1\.5'),
        ({'anchor_eps': 0.7}, r'anchor_eps must .*0\.5.*, got 0\.7'),
        ({'num_queries': 0}, 'num_queries must be at least 1 .*, got 0'),
        ({'rank': 'class'}, r"rank must be one of \['token', 'token_class'\], got 'class'"),
        ({'class_agnostic': 'yes'}, "class_agnostic must be True or False, got 'yes'"),
        ({'act_cfg': 'SiLU'}, r"act_cfg must be a dict, such as dict\(name=value\), or None, got 'SiLU'"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build('IoUAwareQuerySelector', **settings)


def test_learned_content_is_the_same_for_every_image_and_trained() -> None:
    selector = build('IoUAwareQuerySelector', learned_content=True)
    content = selector(memory()).queries.content
    assert torch.equal(content[0], selector.content.weight) and torch.equal(content[1], content[0])
    assert content.requires_grad
    assert torch.equal(selector(memory(), num_queries=4).queries.content[0], selector.content.weight[:4])
    with pytest.raises(ValueError, match='12 queries asked for, but there is learned content for 10'):
        selector(memory(), num_queries=12)


def test_learned_anchors_ignore_the_image() -> None:
    selector = build('LearnedAnchors')
    selection, other = selector(memory()), selector(memory())
    assert torch.equal(selection.queries.anchors_unact, other.queries.anchors_unact)
    assert (selection.queries.content == 0).all() and selection.encoder is None and selection.token_index is None
    selection.queries.anchors_unact.sum().backward()
    assert (selector.xy_unact.grad == 2).all() and (selector.wh_unact.grad == 2).all()


def test_random_centres_are_spread_evenly_and_stay() -> None:
    """Fixed x, y: no gradient, not a parameter, but part of a checkpoint."""
    selector = build('LearnedAnchors', num_queries=4000, random_xy=True)
    centres = selector(memory()).queries.anchors_unact[0, :, :2].sigmoid()
    # four standard deviations of the mean of 4000
    assert centres.mean(0).tolist() == pytest.approx([0.5, 0.5], abs=0.02)
    assert centres.std(0).tolist() == pytest.approx([12**-0.5] * 2, abs=0.01)  # four standard deviations
    assert [name for name, _ in selector.named_parameters()] == ['wh_unact']
    assert set(selector.state_dict()) == {'xy_unact', 'wh_unact'}


def test_patterns_pair_every_anchor_with_every_content() -> None:
    selector = build('LearnedAnchors', num_queries=6, num_patterns=3)
    content, anchors_unact, _ = selector(memory()).queries[:3]
    pairs = {(tuple(c.tolist()), tuple(a.tolist())) for c, a in zip(content[0], anchors_unact[0])}
    assert len(pairs) == 6 and len({c for c, _ in pairs}) == 3 and len({a for _, a in pairs}) == 2
    with pytest.raises(ValueError, match='num_queries to be a multiple of it, got 7'):
        build('LearnedAnchors', num_queries=7, num_patterns=3)


def test_learned_embeddings_start_without_a_box() -> None:
    selector = build('LearnedEmbeddings')
    content, anchors_unact, position = selector(memory(), num_queries=7).queries[:3]
    assert (anchors_unact == 0).all() and (content == 0).all()
    assert torch.equal(position[1], selector.position.weight[:7]) and position.requires_grad


@pytest.mark.parametrize('kind', ['LearnedAnchors', 'LearnedEmbeddings'])
def test_learned_queries_are_as_many_as_there_are(kind: str) -> None:
    with pytest.raises(ValueError, match=f'11 queries asked for, but {kind} has learned 10'):
        build(kind)(memory(), num_queries=11)


def test_learned_positions_stay_with_their_queries() -> None:
    """Denoising queries, put before them, have none; neither have two of them together."""
    learned = build('LearnedEmbeddings')(memory()).queries
    noisy = learned._replace(content=torch.ones(2, 4, DIMS), anchors_unact=torch.ones(2, 4, 4), position=None)
    joined = learned.after(noisy)
    assert torch.equal(joined.content, torch.cat([noisy.content, learned.content], 1))
    assert torch.equal(joined.anchors_unact, torch.cat([noisy.anchors_unact, learned.anchors_unact], 1))
    code = torch.full((2, 14, DIMS), 0.5)
    assert torch.equal(joined.position_codes(code)[:, :4], code[:, :4])
    torch.testing.assert_close(joined.position_codes(code)[:, 4:], code[:, 4:] + learned.position)
    assert noisy.after(noisy).position is None
