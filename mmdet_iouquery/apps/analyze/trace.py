"""What the queries of one image go through, from the encoder to the last decoder layer, as plain numbers.

Boxes are x1, y1, x2, y2 in px of the image as it lies on the disk, neither cut at its edges nor rounded. Scores are
probabilities. Letters as in :mod:`mmdet_iouquery.core`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.structures import InstanceData
from numpy.typing import NDArray
from torch import Tensor, nn

from ...core import box_cxcywh_to_xyxy, first_group
from ...errors import InputError
from ...evaluation.selection_quality import Objects, SelectedQueries, compare_with_objects
from ...models.hosts.cross_attention import Inputs, attention_of, bind_inputs, cross_attentions, is_dense
from ...models.layers import DenseAttention, SampledAttention
from ...structures import Decoded, Predictions
from .edges import EdgeDistributions, edge_distributions

Numbers = NDArray[Any]


class ScoredBoxes(NamedTuple):
    """One stage's predictions for the queries."""

    boxes_px: Numbers
    """(Q, 4)."""
    class_scores: Numbers
    """(Q, C) in [0, 1]; C = 1 where objects are told from background only."""

    @property
    def scores(self) -> Numbers:
        """(Q,), of the best class."""
        return self.class_scores.max(axis=1)

    @property
    def labels(self) -> Numbers:
        """(Q,) int, the best class."""
        return self.class_scores.argmax(axis=1)


class Tokens(NamedTuple):
    """The encoder tokens that queries came from."""

    number: Numbers
    """(Q,) int, in the memory."""
    level: Numbers
    """(Q,) int, 0 the finest."""
    centres_px: Numbers
    """(Q, 2), x and y."""


class Noise(NamedTuple):
    """The first group of denoising queries."""

    before_px: Numbers
    """(P, 4), the noisy boxes that go in."""
    after: ScoredBoxes
    """What the last decoder layer makes of them."""
    truth: Numbers
    """(P,) int, the object each was made from."""
    positive: Numbers
    """(P,) bool: to be restored, rather than recognised as no object."""


class LayerAttention:
    """Where queries look in one decoder layer's cross-attention; worked out for the queries that are asked for."""

    def __init__(self, module: nn.Module, inputs: Inputs, matching_index: Tensor, frame: _Frame) -> None:
        self._module, self._inputs, self._frame = module, inputs, frame
        self._matching_index = matching_index

    @property
    def dense(self) -> bool:
        """Whether every token is attended to (otherwise points are sampled)."""
        return is_dense(self._module)

    @torch.no_grad()
    def maps(self, queries: Numbers, *, content: bool = True) -> list[Numbers]:
        """Of dense attention, the weight of every token, mean over heads: for each level (K, h, w); all sum to 1.

        Args:
            queries: (K,) int, indices of queries.
            content: False: content is set to zero, so that what is left is attention by position.
        """
        read = attention_of(self._module, self._inputs, self._index(queries), content=content)
        assert isinstance(read, DenseAttention)
        weights = read.weights[0].mean(0).cpu()
        parts = weights.split([h * w for h, w in self._frame.shapes], dim=1)
        return [level.unflatten(1, shape).numpy() for level, shape in zip(parts, self._frame.shapes)]

    @torch.no_grad()
    def points(self, queries: Numbers) -> tuple[Numbers, Numbers, Numbers]:
        """Of sampling attention, all points of each query, HS in all heads: places in px (K, HS, 2), weights, levels.

        Weights (K, HS) are each query's share, summing to 1; levels (HS,) int, 0 the finest.
        """
        read = attention_of(self._module, self._inputs, self._index(queries))
        assert isinstance(read, SampledAttention)
        points, weights = read.locations[0].cpu().double(), read.weights[0].cpu()
        heads = weights.shape[1]
        level = np.tile(np.repeat(np.arange(len(read.num_points)), read.num_points), heads)
        places_px = points.flatten(1, 2).numpy() * self._frame.input_px
        return places_px, (weights / heads).flatten(1).numpy(), level

    def _index(self, queries: Numbers) -> Tensor:
        return self._matching_index[torch.from_numpy(np.asarray(queries, dtype=np.int64))]


@dataclass(frozen=True)
class QueryTrace:
    """One image's queries.

    Attributes:
        image_id: as in the data set.
        path: of the image; empty where there is none.
        size_px: width and height.
        input_px: width and height, in px of the image, of what the network saw, padding included.
        objects: ground truth.
        spatial_shapes: height and width of the memory's levels in tokens.
        anchors_px: (Q, 4), the boxes that the decoder starts from; None: queries are no boxes.
        tokens: where the queries come from; None: from no token.
        encoder: the encoder's own predictions for them; None: it makes none.
        layers: the decoder layers' predictions.
        noise: denoising queries; None: there are none, or no objects to make them of.
        edges: distributions of the boxes' edges; None: the decoder refines none.
        attention: the decoder layers' cross-attention; empty where it is of a kind that can't be read.
    """

    image_id: Any
    path: str
    size_px: tuple[int, int]
    input_px: tuple[float, float]
    objects: Objects
    spatial_shapes: tuple[tuple[int, int], ...]
    anchors_px: Numbers | None
    tokens: Tokens | None
    encoder: ScoredBoxes | None
    layers: tuple[ScoredBoxes, ...]
    noise: Noise | None
    edges: EdgeDistributions | None = None
    attention: tuple[LayerAttention, ...] = field(repr=False, default=())


def parts_of(detector: nn.Module) -> Any:
    """The module of a detector that selects and decodes: an adapter itself, or an ``RTDETRHead``.

    Raises:
        InputError: it has neither, or queries that can't be followed.
    """
    candidates: tuple[Any, ...] = (detector, getattr(detector, 'bbox_head', None))
    for module in candidates:
        if hasattr(module, 'run_parts'):
            reason = module.why_untraceable() if hasattr(module, 'why_untraceable') else None
            if reason:
                raise InputError(
                    f'the queries of {type(detector).__name__} cannot be followed: {reason}; name another model'
                )
            return module
    raise InputError(
        f"{type(detector).__name__} has no queries to look at: name a detector with an RTDETRHead, or one of mmdet's "
        'DETR, Conditional DETR, DAB-DETR, two-stage Deformable DETR and DINO'
    )


@torch.no_grad()
def trace(detector: Any, data: dict[str, Any], objects: Objects | None = None, *, seed: int = 0) -> QueryTrace:
    """Run a detector on one image and write down what its queries go through.

    The model predicts as always (its norms and dropouts are those of evaluation), but tells of every layer, and makes
    denoising queries of the objects.

    Args:
        detector: in evaluation mode, with its weights.
        data: one element of an mmdet test data set: ``inputs`` and ``data_samples``.
        objects: ground truth in px of the image on the disk; None: there is none.
        seed: of the denoising queries' noise.

    Raises:
        InputError: a detector without queries, or a test pipeline that mirrors images.
    """
    parts = parts_of(detector)
    objects = Objects(np.zeros((0, 4)), np.zeros(0, int)) if objects is None else objects
    batch = detector.data_preprocessor({'inputs': [data['inputs']], 'data_samples': [data['data_samples']]}, False)
    images, (sample,) = batch['inputs'], batch['data_samples']
    _put_truth(sample, objects, images.device)
    with as_if_training(parts, parts.decoder), _seeded(seed), _watched(parts.decoder) as calls:
        decoded = parts.run_parts(detector.extract_feat(images), [sample], parts.targets([sample]))
    frame = _Frame(sample.metainfo, decoded)
    score = _class_scores(detector, parts)
    predictions = decoded.matching_predictions
    height, width = sample.metainfo['ori_shape'][:2]
    return QueryTrace(
        image_id=sample.metainfo.get('img_id'),
        path=sample.metainfo.get('img_path') or '',
        size_px=(width, height),
        input_px=tuple(frame.input_px.tolist()),
        objects=objects,
        spatial_shapes=decoded.memory.spatial_shapes,
        anchors_px=_anchors(decoded, frame),
        tokens=_tokens(decoded, frame),
        encoder=_encoder(decoded, frame, score),
        layers=_scored(predictions, frame, score),
        noise=_noise(decoded, frame, score) if len(objects.labels) else None,
        edges=predictions.refinement and edge_distributions(predictions.refinement, frame.boxes_px),
        attention=tuple(LayerAttention(module, inputs, decoded.matching_index, frame) for module, inputs in calls),
    )


def selected_queries(trace: QueryTrace) -> SelectedQueries:
    """The selected queries of a traced image.

    Raises:
        InputError: the model has no selector whose encoder predicts anything.
    """
    if trace.encoder is None:
        raise InputError(
            "the model's queries are learned, not selected: there is no score of a selector to compare with IoU; name "
            'a model with a query selector over the encoder'
        )
    labels = trace.encoder.labels if trace.encoder.class_scores.shape[1] > 1 else None
    return compare_with_objects(trace.encoder.boxes_px, trace.encoder.scores, labels, trace.objects)


@contextmanager
def as_if_training(*modules: nn.Module) -> Iterator[None]:
    """Let these modules alone, not what they hold, be in training mode.

    Heads then make denoising queries and decoders tell of every layer, while norms and dropouts below them go on as
    in prediction.
    """
    was = [module.training for module in modules]
    for module in modules:
        module.training = True
    try:
        yield
    finally:
        for module, mode in zip(modules, was):
            module.training = mode


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """A random state of its own."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


@contextmanager
def _watched(decoder: nn.Module) -> Iterator[list[tuple[nn.Module, Inputs]]]:
    """The calls of a decoder's cross-attention modules."""
    calls: list[tuple[nn.Module, Inputs]] = []

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        calls.append((module, bind_inputs(module, args, kwargs)))

    handles = [module.register_forward_pre_hook(note, with_kwargs=True) for module in cross_attentions(decoder)]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


class _Frame:
    """From normalised numbers to px of the image on the disk."""

    def __init__(self, meta: dict[str, Any], decoded: Decoded) -> None:
        if meta.get('flip'):
            raise InputError('the test pipeline mirrors images; take the flip out to look at queries')
        self.shapes = decoded.memory.spatial_shapes
        height, width = meta['batch_input_shape'][:2]
        scale = np.asarray(meta.get('scale_factor', (1.0, 1.0)), dtype=float)[:2]
        self.input_px = np.array([width, height], dtype=float) / scale
        extent = decoded.memory.extent
        covered = np.ones(2) if extent is None else np.array(meta['img_shape'][1::-1]) / (width, height)
        self.boxes_refer_to_px = np.tile(self.input_px * covered, 2)

    def boxes_px(self, boxes: Tensor) -> Numbers:
        """Normalised cx, cy, w, h (..., 4) to corners in px."""
        return box_cxcywh_to_xyxy(boxes.double()).cpu().numpy() * self.boxes_refer_to_px


def _put_truth(sample: Any, objects: Objects, device: torch.device) -> None:
    """The objects as the network would meet them in training: in px of its input."""
    scale = np.tile(np.asarray(sample.metainfo.get('scale_factor', (1.0, 1.0)), dtype=float)[:2], 2)
    sample.gt_instances = InstanceData(
        bboxes=torch.from_numpy(np.asarray(objects.boxes_px, dtype=float) * scale).float().to(device),
        labels=torch.from_numpy(np.asarray(objects.labels, dtype=np.int64)).to(device),
    )


def _class_scores(detector: nn.Module, parts: nn.Module) -> Any:
    """From logits (Q, C) to probabilities; DETR's softmax has a last class for "no object"."""
    loss = getattr(getattr(detector, 'bbox_head', None), 'loss_cls', None)
    if parts is detector and loss is not None and not loss.use_sigmoid:
        return lambda logits: logits.double().softmax(-1)[..., :-1].cpu().numpy()
    return lambda logits: logits.double().sigmoid().cpu().numpy()


def _scored(predictions: Predictions, frame: _Frame, score: Any) -> tuple[ScoredBoxes, ...]:
    """Each layer's predictions of the one image."""
    return tuple(ScoredBoxes(frame.boxes_px(boxes[0]), score(logits[0])) for logits, boxes in zip(*predictions[:2]))


def _anchors(decoded: Decoded, frame: _Frame) -> Numbers | None:
    queries = decoded.selection.queries
    return None if queries.position is not None else frame.boxes_px(queries.anchors_unact[0].double().sigmoid())


def _tokens(decoded: Decoded, frame: _Frame) -> Tokens | None:
    if decoded.selection.token_index is None:
        return None
    index = decoded.selection.token_index[0].cpu().numpy()
    sizes = np.array([h * w for h, w in frame.shapes])
    starts = np.cumsum(sizes) - sizes
    level = np.searchsorted(np.cumsum(sizes), index, side='right')
    heights, widths = np.array(frame.shapes).T
    row, column = np.divmod(index - starts[level], widths[level])
    centres = np.stack([(column + 0.5) / widths[level], (row + 0.5) / heights[level]], axis=1)
    return Tokens(index, level, centres * frame.input_px)


def _encoder(decoded: Decoded, frame: _Frame, score: Any) -> ScoredBoxes | None:
    selection = decoded.selection
    if selection.encoder is None:
        return None
    logits, boxes = selection.encoder.logits[0, 0], selection.encoder.boxes[0, 0]
    if selection.token_index is not None and len(logits) != selection.token_index.shape[1]:  # of all tokens
        logits, boxes = logits[selection.token_index[0]], boxes[selection.token_index[0]]
    return ScoredBoxes(
        frame.boxes_px(boxes), score(logits[..., :1] if selection.encoder_target.class_agnostic else logits)
    )


def _noise(decoded: Decoded, frame: _Frame, score: Any) -> Noise | None:
    """The first group's queries."""
    denoising = decoded.denoising
    if denoising is None:
        return None
    group, truth, positive = first_group(denoising.pairs, decoded.num_denoising, denoising.num_groups)
    after = _scored(decoded.denoising_predictions.apply(lambda x: x[-1:, :, group]), frame, score)[0]
    before = frame.boxes_px(denoising.queries.anchors_unact[0, group].double().sigmoid())
    return Noise(before, after, truth.cpu().numpy(), positive.cpu().numpy())
