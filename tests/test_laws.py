"""Every registered part keeps the laws of its kind, and the checks find what breaks one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from mmcv.transforms import BaseTransform
from mmdet.registry import MODELS, TRANSFORMS
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmdet_iouquery.core import inverse_sigmoid
from mmdet_iouquery.errors import InputError
from mmdet_iouquery.models.backbones import HGNetv2
from mmdet_iouquery.models.decoders import DeformableDecoder
from mmdet_iouquery.models.denoising import ContrastiveDenoising
from mmdet_iouquery.models.losses import IoUVarifocalLoss
from mmdet_iouquery.models.query_selectors import IoUAwareQuerySelector
from mmdet_iouquery.structures import Memory, Predictions, Queries, Selection
from mmdet_iouquery.testing import (
    LawError,
    check_backbone,
    check_criterion_loss,
    check_decoder,
    check_denoising,
    check_query_selector,
    check_transform,
)

FEW = {'num_layers': 2}
SMALL = {'out_indices': (1, 2, 3)}
NARROW_VIT = {'embed_dims': 32, 'num_heads': 2, 'feedforward_channels': 48, 'depth': 3}
CALLED_WITH = {'VisionTransformer': {'strides': (16,)}}
"""What checks are told of some parts."""
KEPT: dict[Callable, dict[str, list[dict[str, Any]]]] = {
    check_query_selector: {
        'IoUAwareQuerySelector': [{}, {'learned_content': True}, {'rank': 'token_class'}, {'class_agnostic': True}],
        'ClassScoreQuerySelector': [{}],
        'ScoreTimesIoUQuerySelector': [{}, {'rank': 'token_class'}],
        'LearnedAnchors': [{}, {'random_xy': True}, {'num_patterns': 3}, {'learned_content': True}],
        'LearnedEmbeddings': [{}, {'learned_content': True}],
    },
    check_denoising: {
        'ContrastiveDenoising': [
            {},
            {'num_denoising': 6, 'label_noise_ratio': 0.9},
            {'contrastive': False, 'box_noise': 'centre_size', 'num_groups': 5},
        ]
    },
    check_decoder: {
        'DeformableDecoder': [
            FEW,
            {**FEW, 'sampling': 'discrete', 'dropout': 0.3},
            {**FEW, 'act_cfg': {'type': 'SiLU'}},
        ],
        'DABDecoder': [FEW, {**FEW, 'query_scale': 'fix_elewise'}, {**FEW, 'cross_attention': 'deformable'}],
        'DistributionDecoder': [FEW, {**FEW, 'fusion': 'add'}],
    },
    check_criterion_loss: {'IoUVarifocalLoss': [{}], 'MatchabilityAwareLoss': [{}, {'alpha': 0.5}]},
    check_backbone: {
        'HGNetv2': [{**SMALL, 'arch': 'B0', 'learnable_affine': True, 'frozen_stages': 0}],
        'ResNetVd': [{**SMALL, 'depth': 18, 'base_channels': 8}],
        'VisionTransformer': [{'arch': 'dinov3-s+', 'size_cfg': NARROW_VIT}],
        'ViTAdapter': [
            {'arch': 'tiny', 'size_cfg': NARROW_VIT, 'out_indices': (0, 1, 2), 'prior_channels': 4, 'frozen_stages': 1},
            {'arch': 'ecvit-s', 'size_cfg': NARROW_VIT, 'out_indices': (0, 1), 'tokens': 'mean', 'project': 'coarsest'},
        ],
    },
    check_transform: {
        'CleanBoxes': [{}],
        'ToUint8': [{}],
        'AntialiasedResize': [{'scale': (64, 48)}, {'scale': (64, 48), 'keep_ratio': True}],
        'DistortColours': [{}],
        'ExpandAndCrop': [{}],
        'QuarterMosaic': [{'short_side': 32}],
        'InStages': [{'stages': ['first'], 'transforms': [{'type': 'RandomFlip', 'prob': 0.5}]}],
    },
}
"""The check of each kind of part, the registered parts of that kind, and settings of each."""
FOLDERS = {
    check_query_selector: 'models.query_selectors',
    check_denoising: 'models.denoising',
    check_decoder: 'models.decoders',
    check_criterion_loss: 'models.losses.quality_losses',
    check_backbone: 'models.backbones',
    check_transform: 'datasets',
}
CASES = [
    pytest.param(check, {'type': name, **settings}, id=f'{name} {settings or ""}')
    for check, parts in KEPT.items()
    for name, variants in parts.items()
    for settings in variants
]


@pytest.mark.parametrize(('check', 'config'), CASES)
def test_our_parts_keep_the_laws(check: Callable, config: dict[str, Any]) -> None:
    check(config, **CALLED_WITH.get(config['type'], {}))


@pytest.mark.parametrize('levels', [1, 4])
@pytest.mark.parametrize('name', KEPT[check_decoder])
def test_our_decoders_read_any_number_of_maps(name: str, levels: int) -> None:
    check_decoder({'type': name, **FEW}, num_levels=levels)


@pytest.mark.parametrize('name', ['FocalLoss', 'QualityFocalLoss'])
def test_mmdets_losses_keep_the_laws(name: str) -> None:
    check_criterion_loss({'type': name})


def test_every_registered_part_is_held_to_the_laws() -> None:
    for check, folder in FOLDERS.items():
        registry = TRANSFORMS if check is check_transform else MODELS
        where = f'mmdet_iouquery.{folder}'
        registered = {
            name
            for name, part in registry.module_dict.items()
            if part.__module__.startswith(where) and not part.__module__.endswith('.loading')
        }
        assert registered and registered == set(KEPT[check]), check.__name__


def test_a_built_part_is_checked_and_left_alone() -> None:
    part = IoUAwareQuerySelector(num_classes=3, embed_dims=16)
    before = {name: x.clone() for name, x in part.state_dict().items()}
    torch.manual_seed(5)
    check_query_selector(part, num_classes=3, embed_dims=16)
    assert part.training and all(torch.equal(x, before[name]) for name, x in part.state_dict().items())
    drawn = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(1), drawn)  # nobody else's generator has moved
    with pytest.raises(LawError, match=r'encoder.logits has the shape \(1, 3, 20, 4\), got \(1, 3, 20, 3\)'):
        check_query_selector(
            IoUAwareQuerySelector(num_classes=3, embed_dims=16, num_queries=20), num_classes=4, embed_dims=16
        )


@pytest.mark.parametrize('given', [{'type': 'NoSuchSelector'}, {}, 'IoUAwareQuerySelector', None])
def test_what_is_no_part_is_told_as_a_mistake(given: Any) -> None:
    with pytest.raises(InputError, match=r'given built, or as a config .* got .*; is the module imported'):
        check_query_selector(given)


def test_a_mistake_in_a_config_stays_one() -> None:
    with pytest.raises(InputError, match='grid_size must'):
        check_query_selector({'type': 'IoUAwareQuerySelector', 'grid_size': 7})


# --- parts that break a law -------------------------------------------------------------------------------------------


def broken(parent: type, change: Callable, **settings: Any) -> nn.Module:
    """A part whose answer is ``change(answer, part, *arguments)`` of its parent's, where there is one."""

    class Broken(parent):  # type: ignore[misc]
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            return change(super().forward, self, *args, **kwargs)

    return Broken(**settings)


SHARED = {'num_classes': 5, 'embed_dims': 32}


def selector(change: Callable, **settings: Any) -> nn.Module:
    """``change(select, part, memory, num_queries)``."""

    def call(select: Callable, part: nn.Module, memory: Memory, num_queries: int | None = None) -> Any:
        return change(select, part, memory, num_queries)

    return broken(IoUAwareQuerySelector, call, **SHARED, **settings)


class TakesFromItsConfig(IoUAwareQuerySelector):
    def __init__(self, *, act_cfg: dict, **others: Any) -> None:
        act_cfg.pop('inplace')
        super().__init__(act_cfg=act_cfg, **others)


class TakesNoClasses(IoUAwareQuerySelector):
    def __init__(self, *, embed_dims: int) -> None:
        super().__init__(num_classes=5, embed_dims=embed_dims)


class KeepsNoState(IoUAwareQuerySelector):
    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.shift = torch.randn(settings['embed_dims'])

    def forward(self, memory: Memory, num_queries: int | None = None) -> Selection:
        return super().forward(memory._replace(tokens=memory.tokens + self.shift), num_queries)


class CountsWithLen(BaseModule):
    def __init__(self, *, num_classes: int, embed_dims: int) -> None:
        super().__init__()
        self.learned = nn.Embedding(100, embed_dims + 4)

    def forward(self, memory: Memory, num_queries: int | None = None) -> Selection:
        both = self.learned.weight[: num_queries or 100].expand(len(memory.tokens), -1, -1)
        return Selection(Queries(both[..., 4:], both[..., :4]))


class WithUnused(IoUAwareQuerySelector):
    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.unused = nn.Linear(2, 2)


class NotDetached(IoUAwareQuerySelector):
    def _content(self, chosen: Tensor) -> Tensor:
        return chosen


class SaysNothing(IoUAwareQuerySelector):
    selects_tokens = False


class HidesItsNumber(BaseModule):
    selects_tokens = True

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self.selector = IoUAwareQuerySelector(**settings)

    def forward(self, memory: Memory, num_queries: int | None = None) -> Selection:
        return self.selector(memory, num_queries)


def square(select: Callable, part: nn.Module, memory: Memory, number: int | None) -> Selection:
    side = math.isqrt(memory.spatial_shapes[0][0] * memory.spatial_shapes[0][1])
    memory.tokens[:, : side * side].view(memory.tokens.shape[0], side, side, -1)
    assert memory.spatial_shapes[0] == (side, side)
    return select(memory, number)


def blank(memory: Memory) -> Memory:
    """With zeros where there is padding: it does not count then, but is a token as any."""
    if memory.padding is None:
        return memory
    return memory._replace(tokens=memory.tokens.masked_fill(memory.padding.unsqueeze(-1), 0.0))


def with_content(selection: Selection, added: Any) -> Selection:
    queries = selection.queries
    return selection._replace(queries=queries._replace(content=queries.content + added))


SELECTORS: dict[str, tuple[Any, str]] = {
    'selects padding': (
        selector(lambda f, p, m, n: f(m._replace(padding=None), n)),
        r'no query of \d+ is padding where there are as many',
    ),
    'leaves padding in its place': (
        selector(lambda f, p, m, n: f(blank(m)._replace(padding=None), n)),
        r'no query of \d+ is padding',
    ),
    'reads padding': (
        selector(lambda f, p, m, n: with_content(f(m, n), m.tokens.mean(1, keepdim=True).detach())),
        r'tokens in padding do not count \(queries.content\), got a difference',
    ),
    'changes its config': (
        {'type': TakesFromItsConfig, 'act_cfg': {'type': 'ReLU', 'inplace': True}},
        'leaves the config',
    ),
    'takes no classes': ({'type': TakesNoClasses}, 'its constructor takes num_classes, embed_dims'),
    'depends on the batch': (
        selector(lambda f, p, m, n: f(m._replace(tokens=m.tokens - m.tokens.mean(0)), n)),
        'an image alone gives what it gives in a batch',
    ),
    'draws in evaluation mode': (
        selector(lambda f, p, m, n: with_content(f(m, n), torch.rand(1))),
        'the same inputs give the same twice',
    ),
    'keeps no state': ({'type': KeepsNoState}, 'the same config and state dict give the same'),
    'counts with len': ({'type': CountsWithLen}, 'recorded with two images takes three'),
    'has unused parameters': ({'type': WithUnused}, r'learns, .* no gradient for unused.weight, unused.bias'),
    'does not detach': ({'type': NotDetached}, 'queries that are tokens are detached, got a gradient'),
    'detaches all': (
        selector(lambda f, p, m, n: f(m._replace(tokens=m.tokens.detach()), n)),
        'encoder predictions train the memory',
    ),
    'gives a tuple': (selector(lambda f, p, m, n: tuple(f(m, n))), 'the answer is of the type Selection, got tuple'),
    'ignores the number': (selector(lambda f, p, m, n: f(m, 10)), 'of .* tokens 1 become queries, got 10'),
    'gives logits for boxes': (
        selector(lambda f, p, m, n: (s := f(m, n))._replace(encoder=s.encoder.apply(inverse_sigmoid))),
        r'encoder.boxes are normalised, in 0..1, got -',
    ),
    'counts denoising': (
        selector(lambda f, p, m, n: (s := f(m, n))._replace(queries=s.queries._replace(num_denoising=1))),
        'queries.num_denoising is 0, got 1',
    ),
    'does not say that queries are tokens': (
        {'type': SaysNothing},
        'there is a token_index just where selects_tokens is True, got selects_tokens=False',
    ),
    'says that queries are tokens': (
        selector(lambda f, p, m, n: f(m, n)._replace(token_index=None)),
        'there is a token_index just where selects_tokens is True, got selects_tokens=True',
    ),
    'hides its number': ({'type': HidesItsNumber}, 'num_queries says for how many it was built, got None'),
    'gives short indices': (
        selector(lambda f, p, m, n: (s := f(m, n))._replace(token_index=s.token_index.int())),
        'token_index is of torch.int64, got torch.int32',
    ),
    'writes into the memory': (
        selector(lambda f, p, m, n: f(m._replace(tokens=m.tokens.mul_(0.5)), n)),
        'inputs stay as they are',
    ),
    'takes squares alone': (selector(square), 'can be called as its protocol says, got AssertionError'),
}


def decoder(change: Callable, **settings: Any) -> nn.Module:
    """``change(decode, part, queries, memory, mask, num_layers)``."""

    def call(
        decode: Callable,
        part: nn.Module,
        queries: Queries,
        memory: Memory,
        attention_mask: Tensor | None = None,
        num_layers: int | None = None,
    ) -> Any:
        return change(decode, part, queries, memory, attention_mask, num_layers)

    return broken(DeformableDecoder, call, **SHARED, num_layers=2, num_heads=2, **settings)


class CountsNoLayers(BaseModule):
    def forward(self, queries: Queries, memory: Memory) -> Predictions:
        return Predictions(queries.content[None, ..., :5], queries.anchors_unact[None].sigmoid())


class DividesByAnchors(DeformableDecoder):
    def forward(self, queries: Queries, *others: Any, **more: Any) -> Predictions:
        output = super().forward(queries, *others, **more)
        return output._replace(logits=output.logits - (1 - queries.anchors_unact.sigmoid()).log().sum(-1)[..., None])


def position_first(decode: Callable, part: nn.Module, q: Queries, *others: Any) -> Predictions:
    position = torch.arange(q.content.shape[1])[:, None] / 10
    return decode(q._replace(content=q.content + position), *others)


def mean_of_all(decode: Callable, part: nn.Module, q: Queries, m: Memory, mask: Any, n: Any) -> Predictions:
    return decode(q, m._replace(tokens=m.tokens + m.tokens.mean(1, keepdim=True)), mask, n)


DECODERS: dict[str, tuple[Any, str]] = {
    'ignores the mask': (decoder(lambda f, p, q, m, mask, n: f(q, m, None, n)), 'a query that attention_mask hides'),
    'ignores position codes': (
        decoder(lambda f, p, q, m, mask, n: f(q._replace(position=None), m, mask, n)),
        'queries.position is added to the codes',
    ),
    'ignores num_layers': (decoder(lambda f, p, q, m, mask, n: f(q, m, mask)), 'num_layers=1 of 2 gives what layer 1'),
    'ignores the extent': (
        decoder(lambda f, p, q, m, mask, n: f(q, m._replace(extent=None), mask, n)),
        'the part of the maps that memory.extent says',
    ),
    'reads padding': (decoder(mean_of_all), 'padding is not read'),
    'knows the order': (decoder(position_first), 'the order of queries does not matter'),
    'says the last layer alone in training': (
        decoder(lambda f, p, *others: f(*others).apply(lambda x: x[-1:])),
        r'logits has the shape \(2, 3, 6, 5\), got \(1, 3, 6, 5\)',
    ),
    'gives px': (decoder(lambda f, p, *o: (x := f(*o))._replace(boxes=x.boxes * 640)), 'boxes are normalised'),
    'detaches the anchors': (
        decoder(lambda f, p, q, *o: f(q._replace(anchors_unact=q.anchors_unact.detach()), *o)),
        'predictions train the anchors',
    ),
    'counts no layers': (CountsNoLayers(), 'the attribute num_layers says how many there are, got None'),
    'divides by anchors': ({'type': DividesByAnchors, 'num_layers': 2}, 'anchors of any logit can be decoded'),
}


def denoising(change: Callable) -> nn.Module:
    """``change(denoise, part, targets, num_queries)``."""
    return broken(ContrastiveDenoising, change, **SHARED, num_denoising=8)


class OwnGenerator(ContrastiveDenoising):
    def forward(self, targets: Any, num_queries: int) -> Any:
        noisy = super().forward(targets, num_queries)
        noise = torch.from_numpy(np.random.default_rng().random(noisy.queries.anchors_unact.shape, np.float32))
        return noisy._replace(queries=noisy.queries._replace(anchors_unact=noisy.queries.anchors_unact + noise))


def nothing_without_boxes(denoise: Callable, part: nn.Module, targets: Any, number: int) -> Any:
    noisy = denoise(targets, number)
    if sum(targets.counts):
        return noisy
    none = Queries(noisy.queries.content[:, :0], noisy.queries.anchors_unact[:, :0])
    return noisy._replace(queries=none, attention_mask=torch.zeros(number, number, dtype=torch.bool))


def with_mask(value: bool, rows: slice, columns: slice) -> Callable:
    def change(denoise: Callable, part: nn.Module, targets: Any, number: int) -> Any:
        noisy = denoise(targets, number)
        noisy.attention_mask[rows, columns] = value
        return noisy

    return change


def one_box_further(denoise: Callable, part: nn.Module, targets: Any, number: int) -> Any:
    noisy = denoise(targets, number)
    image, query, truth = noisy.pairs
    return noisy._replace(pairs=(image, query, (truth + 1) % max(1, len(targets.labels))))


DENOISING: dict[str, tuple[Any, str]] = {
    'shows the ground truth': (denoising(with_mask(False, slice(-5, None), slice(-5))), 'no matching query sees'),
    'hides matching queries': (
        denoising(with_mask(True, slice(-1, None), slice(-2, -1))),
        'matching queries see each other',
    ),
    'shows groups to each other': (
        denoising(with_mask(False, slice(-5), slice(-5))),
        'queries that restore the same box do not see each other',
    ),
    'pairs with another box': (denoising(one_box_further), 'a pair is of an image and one of its boxes'),
    'counts one group': (
        denoising(lambda f, p, *a: f(*a)._replace(num_groups=1)),
        r'a box is in num_groups=1 pairs, .* got \[4, 4, 4\]',
    ),
    'gives nothing without boxes': (denoising(nothing_without_boxes), 'there are always denoising queries'),
    'draws by itself': ({'type': OwnGenerator}, 'equal seeds give equal queries'),
    'writes into the targets': (
        denoising(lambda f, p, t, n: f(t._replace(boxes=t.boxes.clamp_(max=0.4)), n)),
        'targets stay as they are',
    ),
}


class OwnLoss(IoUVarifocalLoss):
    """Terms (N, C) of an attribute."""

    of: Callable

    def terms(self, logits: Tensor, labels: Tensor, quality: Tensor) -> Tensor:
        return self.of(super().terms, logits, labels, quality)


def loss(change: Callable) -> nn.Module:
    """``change(terms, logits, labels, quality)``."""
    return type('Changed', (OwnLoss,), {'of': staticmethod(change)})()


class AlwaysMean(IoUVarifocalLoss):
    def forward(self, *args: Any, **others: Any) -> Tensor:
        return super().forward(*args, **{**others, 'reduction_override': 'mean'})


class IgnoresWeight(IoUVarifocalLoss):
    def forward(self, pred: Tensor, target: Any, weight: Any = None, **others: Any) -> Tensor:
        return super().forward(pred, target, **others)


def log_of_sigmoid(terms: Callable, logits: Tensor, labels: Tensor, quality: Tensor) -> Tensor:
    hot = labels[:, None] == torch.arange(5)
    p = logits.sigmoid()
    return -torch.where(hot, p, 1 - p).log()


LOSSES: dict[str, tuple[Any, str]] = {
    'is always a mean': (AlwaysMean(), "'none' gives one loss for each of 8 predictions"),
    'ignores the weight': (IgnoresWeight(), r"mmdet's \(sum by weight\)"),
    'depends on other rows': (loss(lambda f, x, y, q: f(x - x.mean(0), y, q)), 'depends on no other'),
    'is negative': (loss(lambda f, x, y, q: f(x, y, q) - 1), 'no loss is below 0'),
    'pushes away': (loss(lambda f, x, y, q: f(-x, y, q)), 'a sure and right prediction costs nothing'),
    'leaves background alone': (
        loss(lambda f, x, y, q: f(x, y, q) * (y < 5)[:, None]),
        'other classes are pushed down',
    ),
    'takes logarithms': (loss(log_of_sigmoid), 'is finite'),
    'is of a softmax': ({'type': 'CrossEntropyLoss'}, 'each class has a sigmoid of its own'),
    'takes no quality': (nn.BCEWithLogitsLoss(), "called as mmdet's classification losses are, got TypeError"),
}


def backbone(change: Callable, **settings: Any) -> nn.Module:
    return broken(HGNetv2, change, arch='Atto', out_indices=(0, 1, 2), **settings)


def norm_of_batch(f: Callable, part: nn.Module, x: Tensor) -> Any:
    return f(x / x.amax((0, 1, 2, 3)) * (1 + x[0].mean()))


BACKBONES: dict[str, tuple[Any, str]] = {
    'gives a list': (backbone(lambda f, p, x: [*f(x)]), 'the answer is of the type tuple, got list'),
    'gives other strides': (backbone(lambda f, p, x: f(x.repeat_interleave(2, -1))), r'map 0 has the shape'),
    'gives two maps': (backbone(lambda f, p, x: f(x)[1:]), r'maps of the strides \(4, 8, 16\), got 2 maps'),
    'depends on the batch': (backbone(norm_of_batch), 'an image alone gives what it gives in a batch'),
    'runs a stage for nothing': (
        backbone(lambda f, p, x: (*(maps := f(x))[:2], maps[2].detach())),
        'every parameter with requires_grad learns',
    ),
}


class Changed(BaseTransform):
    """A change of the results."""

    def __init__(self, change: Callable) -> None:
        self.change = change

    def transform(self, results: dict) -> Any:
        return self.change(results)


def shift(results: dict) -> dict:
    results['gt_bboxes'].translate_([9, 0])
    return results


def first_box(results: dict) -> dict:
    results['gt_bboxes'] = results['gt_bboxes'][:1]
    return results


def halve(results: dict) -> dict:
    results['img'] = results['img'][::2]
    results['gt_bboxes'].rescale_([1, 0.5])
    return results


def flip(results: dict) -> dict:
    boxes = results['gt_bboxes'].tensor
    width = results['img_shape'][1]
    results['gt_bboxes'] = HorizontalBoxes(
        torch.stack([width - boxes[:, 0], boxes[:, 1], width - boxes[:, 2], boxes[:, 3]], 1)
    )
    return results


def mirror(results: dict) -> dict:
    results['img'] = results['img'][::-1, ::-1]
    return results


def own_noise(results: dict) -> dict:
    results['img'] = np.random.default_rng().permutation(results['img'])
    return results


def new_class(results: dict) -> dict:
    results['gt_bboxes_labels'] = results['gt_bboxes_labels'] + 3
    return results


def nothing(results: dict) -> None:
    return None


TRANSFORMATIONS: dict[str, tuple[Any, str]] = {
    'lets boxes leave': (Changed(shift), r'boxes stay within the \d+ x \d+ px of the image, got \[\['),
    'forgets the labels': (Changed(first_box), 'gt_bboxes_labels are as many as boxes, 1, got 3'),
    'forgets the shape': (Changed(halve), r"img_shape is the image's size, \(24, 64\), got \(48, 64\)"),
    'turns boxes inside out': (Changed(flip), 'boxes are x1, y1, x2, y2'),
    'leaves boxes behind': (Changed(mirror), 'boxes go with what they show'),
    'draws by itself': (Changed(own_noise), 'equal seeds give equal results'),
    'makes a class': (Changed(new_class), 'no label is new'),
    'drops all': (Changed(nothing), 'some images are left'),
    'cannot be sent': (Changed(lambda results: results), 'can be sent to a data worker'),
}
BROKEN = [
    pytest.param(check, given, message, settings, id=f'{check.__name__}: {name}')
    for check, parts, settings in (
        (check_query_selector, SELECTORS, {}),
        (check_decoder, DECODERS, {}),
        (check_denoising, DENOISING, {}),
        (check_criterion_loss, LOSSES, {}),
        (check_backbone, BACKBONES, {'strides': (4, 8, 16)}),
        (check_transform, TRANSFORMATIONS, {}),
    )
    for name, (given, message) in parts.items()
]


@pytest.mark.parametrize(('check', 'given', 'message', 'settings'), BROKEN)
def test_a_broken_law_is_found(check: Callable, given: Any, message: str, settings: dict[str, Any]) -> None:
    with pytest.raises(LawError, match=message):
        check(given, **settings)


def test_queries_may_stay_tied_to_their_tokens_where_that_is_meant() -> None:
    check_query_selector({'type': NotDetached}, detached=False)
