"""What is exported: from pixels to detections in one module.

Names of nodes begin with the names of the modules that they come from. They are the interface of whoever leaves a part
out (of quantisation, say), and stay as they are: ``/normalise``, ``/detector/backbone``, ``/detector/neck``,
``/detector/bbox_head/input_proj``, ``/detector/bbox_head/query_selector``, ``/detector/bbox_head/decoder``,
``/postprocess``.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from mmdet.models.layers.transformer.dab_detr_layers import DABDetrTransformerDecoder
from mmdet.structures import DetDataSample
from torch import Tensor, nn

from ..core import as_float, box_cxcywh_to_xyxy, gather_tokens, top_detections, within_range
from ..core.deformable_attention.grid_sample import attend_maps
from ..errors import InputError
from ..models import hosts
from ..models.dense_heads import RTDETRHead
from ..models.dense_heads.prediction_settings import PredictionSettings
from ..models.hosts import IoUQueryDABDETR, IoUQueryDDQDETR
from ..models.hosts.query_parts import QueryParts
from ..models.layers import DeformableAttention, SampledAttention
from ..structures import Memory
from .prepare import cast, merged

STRIDE = 32
"""Height and width of the input are multiples of it."""


class Detections(NamedTuple):
    """What a deployed detector gives."""

    boxes: Tensor
    """(B, K, 4), x1, y1, x2, y2 in px of the original image, cut at it."""
    scores: Tensor
    """(B, K), best first."""
    labels: Tensor
    """(B, K) int64."""
    query_logits: Tensor
    """(B, Q, C), of all queries."""
    query_boxes: Tensor
    """(B, Q, 4), normalised cx, cy, w, h, of all queries."""


class RawPredictions(NamedTuple):
    """What a deployed detector gives without post-processing."""

    logits: Tensor
    """(B, Q, C)."""
    boxes: Tensor
    """(B, Q, 4), normalised cx, cy, w, h."""


class Normalise(nn.Module):
    """Pixels 0..255, RGB, to what a detector's data preprocessor gives its backbone.

    Args:
        preprocessor: the detector's; None: pixels stay as they are.
        channels_last: images come as (B, H, W, 3), of any type.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, preprocessor: Any, channels_last: bool = False) -> None:
        super().__init__()
        self.channels_last = channels_last
        normalises = hasattr(preprocessor, 'mean')
        self.subtracts = normalises and bool(preprocessor.mean.any())
        self.reverse = not _reverses_channels(preprocessor)  # mmcv loads BGR
        for name, none in (('mean', 0.0), ('std', 1.0)):
            values = getattr(preprocessor, name).flatten().tolist() if normalises else [none] * 3
            values = values * 3 if len(values) == 1 else values
            self.register_buffer(
                name, torch.tensor(values[::-1] if self.reverse else values, dtype=torch.float32).view(1, 3, 1, 1)
            )

    @property
    def statistics(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of red, green and blue."""
        return self.mean.flatten().tolist(), self.std.flatten().tolist()

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W), or (B, H, W, 3), to (B, 3, H, W) float32."""
        images = (images.permute(0, 3, 1, 2) if self.channels_last else images).float()
        if self.subtracts:
            images = images - self.mean
        images = images / self.std
        return images[:, [2, 1, 0]] if self.reverse else images


def _reverses_channels(preprocessor: Any) -> bool:
    """Whether a data preprocessor puts the channel first that comes last, tried on an image of that alone."""
    if preprocessor is None:
        return False
    image = torch.zeros(3, STRIDE, STRIDE, dtype=torch.uint8)
    image[2] = 255
    size = (STRIDE, STRIDE)
    sample = DetDataSample(metainfo=dict(img_shape=size, ori_shape=size, scale_factor=(1.0, 1.0)))
    given = preprocessor(dict(inputs=[image], data_samples=[sample]))['inputs']
    return int(given[0][:, 0, 0].argmax()) == 0


class MapAttention(DeformableAttention):
    """Deformable attention without copies: 1x1 convolutions project the maps, and ``GridSample`` reads them.

    As tokens, a runtime transposes and splits the values of every layer: 8,400 x 256 numbers each at 640 x 640.
    """

    def read(self, memory: Memory, points: SampledAttention) -> Tensor:
        """As the parent's, of images without padding."""
        if memory.maps is None:
            return super().read(memory, points)
        maps = [self._projected(level).to(points.locations.dtype) for level in memory.maps]
        attended = attend_maps(maps, points.num_points, points.locations, points.weights, self.sampling_mode)
        return attended.to(memory.tokens.dtype)

    def _projected(self, level: Tensor) -> Tensor:
        """(B, D, h, w) by the projection of values, if there is one."""
        projection = self.value_proj
        if not isinstance(projection, nn.Linear):
            return level
        return within_range(F.conv2d(level, projection.weight[..., None, None], projection.bias))


class Detector(nn.Module):
    """A single-stage detector's parts, each called by itself, so that names of nodes tell of it."""

    def __init__(self, backbone: nn.Module, neck: nn.Module | None, bbox_head: RTDETRHead) -> None:
        super().__init__()
        self.backbone, self.neck, self.bbox_head = backbone, neck, bbox_head

    def forward(self, images: Tensor) -> RawPredictions:
        """(B, 3, H, W), normalised."""
        maps = self.backbone(images)
        predictions = self.bbox_head(maps if self.neck is None else self.neck(maps))
        return RawPredictions(*map(as_float, predictions))

    @torch.no_grad()
    def strides(self) -> list[int]:
        """Of the maps whose pixels are the tokens, in px, finest first."""
        side = 8 * STRIDE
        maps = self.backbone(torch.zeros(1, 3, side, side))
        return [side // x.shape[-1] for x in (maps if self.neck is None else self.neck(maps))]


class AdapterDetector(nn.Module):
    """One of mmdet's detection transformers by its adapter, which is told that images fill the input."""

    def __init__(self, model: QueryParts) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> RawPredictions:
        """(B, 3, H, W), normalised; of height and width no symbol is kept."""
        size = (int(images.shape[-2]), int(images.shape[-1]))
        samples = [DetDataSample(metainfo={'img_shape': size, 'batch_input_shape': size})]
        logits, boxes, _ = self.model.run_parts(self.model.extract_feat(images), samples).predictions
        return RawPredictions(logits[-1], boxes[-1])


class PostProcess(nn.Module):
    """The best (query, class) pairs, in px of each original image.

    Args:
        max_per_img: K, at most.
        softmax: scores are a softmax, whose last class is none, and a query has its best class alone (DETR).
    """

    def __init__(self, max_per_img: int, softmax: bool = False) -> None:
        super().__init__()
        self.max_per_img, self.softmax = max_per_img, softmax

    def forward(self, logits: Tensor, boxes: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes (B, K, 4), scores (B, K) and labels (B, K).

        Args:
            logits: (B, Q, C).
            boxes: (B, Q, 4), normalised cx, cy, w, h.
            sizes: (B, 2), width and height of the original images in px.
        """
        if self.softmax:
            best = logits.softmax(-1)[..., :-1].max(-1)
            scores, query = best.values.topk(min(self.max_per_img, best.values.shape[1]), dim=1)
            labels = best.indices.gather(1, query)
        else:
            scores, labels, query = top_detections(logits, self.max_per_img)
        limit = torch.cat([sizes, sizes], dim=1).unsqueeze(1)
        boxes_px = box_cxcywh_to_xyxy(gather_tokens(boxes, query)) * limit
        return boxes_px.clamp(min=0).minimum(limit), scores, labels


class Deployed(nn.Module):
    """A detector from pixels to detections, for prediction alone; it is always in evaluation mode.

    Images fill the input, as a plain resize leaves them. Detections are those of the detector's ``predict`` before
    ``score_thr``, ``overlap_thr`` and ``calibration``, which make their number depend on the image.

    Args:
        model: the detector, which stays as it is: a copy is taken.
        input: 'float32-nchw' or 'uint8-nhwc', see :meth:`forward`.
        raw: give :class:`RawPredictions`, not :class:`Detections`.
        attention: 'grid_sample' or 'gather', the back end of deformable attention that an exporter writes.
        precision: 'float32', or 'float16': weights, convolutions and products are in float16, and what has to be in
            single precision stays so, as in :func:`.prepare_for_inference`; inputs and results too.
        merge: fuse norms into convolutions, as in :func:`.prepare_for_inference`, and have attention read maps.

    Raises:
        InputError: a detector that cannot be exported so; the message says why.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        input: str = 'float32-nchw',
        raw: bool = False,
        attention: str = 'grid_sample',
        precision: str = 'float32',
        merge: bool = True,
    ) -> None:
        super().__init__()
        check_exportable(model, raw, attention, precision)
        copied: Any = merged(model) if merge else copy.deepcopy(model).eval()
        copied.float().cpu()
        for module in copied.modules():
            if isinstance(module, DeformableAttention):
                module.backend = attention
            if merge and attention == 'grid_sample' and type(module) is DeformableAttention:
                module.__class__ = MapAttention
        head = copied.bbox_head
        self.num_classes: int = head.num_classes
        softmax = False
        if isinstance(head, RTDETRHead):
            self.prediction_settings = head.prediction_settings
            self.detector: nn.Module = Detector(copied.backbone, copied.neck if copied.with_neck else None, head)
        else:
            self.prediction_settings = PredictionSettings(
                (copied.test_cfg or {}).get('max_per_img', copied.num_queries)
            )
            self.detector, softmax = AdapterDetector(copied), not head.loss_cls.use_sigmoid
        self.normalise = Normalise(copied.data_preprocessor, channels_last=input == 'uint8-nhwc')
        self.postprocess = None if raw else PostProcess(self.prediction_settings.max_per_img, softmax)
        if precision == 'float16':
            cast(self.detector, torch.float16)
        self.eval()

    def forward(self, images: Tensor, sizes: Tensor | None = None) -> Detections | RawPredictions:
        """Detect.

        Args:
            images: RGB, 0..255: (B, 3, H, W) float32, or (B, H, W, 3) uint8.
            sizes: (B, 2) float32, width and height of the original images in px; not for raw predictions.
        """
        predictions = self.detector(self.normalise(images))
        if self.postprocess is None:
            return predictions
        return Detections(*self.postprocess(*predictions, sizes), *predictions)

    def train(self, mode: bool = True) -> Deployed:  # noqa: ARG002  exporters give a model back the mode it had
        """Nothing changes."""
        return super().train(False)


def check_kind(model: type, head: type) -> None:
    """Raise :class:`InputError` for a class of detectors, with one of heads, that :class:`Deployed` does not know."""
    name = model.__name__
    if issubclass(head, RTDETRHead):
        return
    if issubclass(model, IoUQueryDDQDETR):
        raise InputError(
            f'{name} cannot be exported: the NMS among its queries, whose number differs from image to image, cannot '
            'be part of a graph; predict with it in PyTorch, or export another detector'
        )
    if not issubclass(model, QueryParts):
        remedy = f', which takes the same weights: IoUQuery{name}' if f'IoUQuery{name}' in hosts.__all__ else ''
        raise InputError(
            f"{name} with {head.__name__} cannot be exported; take a detector with an RTDETRHead, or of mmdet's "
            f'detection transformers an adapter of this package{remedy}'
        )


def check_exportable(model: nn.Module, raw: bool, attention: str, precision: str) -> None:
    """Raise :class:`InputError` for a detector that :class:`Deployed` does not know."""
    head: Any = getattr(model, 'bbox_head', None)
    name = type(model).__name__
    check_kind(type(model), type(head))
    if isinstance(head, RTDETRHead):
        return
    if isinstance(model, IoUQueryDABDETR) and isinstance(model.decoder, DABDetrTransformerDecoder):
        raise InputError(
            f"{name} cannot be exported with mmdet's decoder, which writes into parts of tensors (ScatterND), as not "
            "every runtime does; train one with decoder=dict(type='DABDecoder')"
        )
    if precision == 'float16':
        raise InputError(f'{name} can be exported in float32 only; leave --precision out')
    if raw and not head.loss_cls.use_sigmoid:
        raise InputError(
            f'{name} has a softmax over classes and none, and raw predictions are of sigmoids; leave out raw'
        )
    if attention != 'grid_sample' and any(type(x).__name__ == 'MultiScaleDeformableAttention' for x in model.modules()):
        raise InputError(
            f"{name} reads by mmcv's deformable attention, which is written as GridSample: attention {attention!r} is "
            'for detectors with an RTDETRHead; leave it out'
        )


def example(batch: int, size: Sequence[int], input: str, raw: bool, seed: int = 0) -> tuple[Tensor, ...]:
    """Arguments for :class:`Deployed`: images of noise, of a height and width, and sizes of originals."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (batch, 3, *size), generator=generator, dtype=torch.uint8)
    images = images.permute(0, 2, 3, 1).contiguous() if input == 'uint8-nhwc' else images.float()
    sizes = torch.tensor([[size[1], size[0]]] * batch) * torch.linspace(0.5, 2, batch).unsqueeze(1)
    return (images,) if raw else (images, sizes)
