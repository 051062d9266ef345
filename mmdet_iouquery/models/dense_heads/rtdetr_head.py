"""The head that makes a single-stage detector an RT-DETR."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from mmdet.registry import MODELS
from mmdet.structures import SampleList
from mmengine.model import BaseModule
from mmengine.structures import InstanceData
from torch import Tensor

from ...argument_checks import check_choice, check_configs, check_counts, check_sequence
from ...config_options import type_name
from ...core import top_detections
from ...core.graph_capture import is_captured
from ...structures import Criterion, Decoded, Decoder, DenoisingGenerator, Memory, QuerySelector, Targets
from ..data_samples import complete_scale_factors, keep_selected, padding_of, targets_of
from ..decoders.deformable import resolve_depth
from ..layers import as_tokens, input_projections
from ..pipeline import select_and_decode
from .prediction_settings import PredictionSettings

CRITERION = {
    'type': 'SetCriterion',
    'assigner': {'type': 'BatchedHungarianAssigner', 'class_weight': 2.0, 'bbox_weight': 5.0, 'giou_weight': 2.0},
    'loss_cls': {'type': 'IoUVarifocalLoss', 'alpha': 0.75, 'gamma': 2.0, 'loss_weight': 1.0},
    'loss_bbox': {'type': 'L1Loss', 'loss_weight': 5.0},
    'loss_iou': {'type': 'GIoULoss', 'loss_weight': 2.0},
}
"""RT-DETR's matching and losses."""


@MODELS.register_module()
class RTDETRHead(BaseModule):
    """Query selection, denoising, decoding and the set loss over a neck's maps, for mmdet's ``SingleStageDetector``.

    The head projects the maps to the decoder's width and runs four parts, each named in the config and each
    replaceable: the query selector, the denoising generator, the decoder and the criterion. ``num_classes``,
    ``embed_dims`` and, for the decoder, the number of levels are handed down where a part's config does not give its
    own.

    **Frame.** Normalised boxes refer to the padded input, width and height of the batch; what is beyond an image
    (``img_shape``) is no place for a query and is not read by the decoder. Predicted boxes are cut at the image.

    Args:
        num_classes: number of classes, C.
        in_channels: channels of the neck's maps, finest first.
        embed_dims: width D of memory and queries.
        query_selector, decoder, criterion: the parts; None: RT-DETR's own, as is what a ``SetCriterion``'s config
            leaves out.
        denoising: the denoising generator; None: without.
        project: which maps a 1x1 convolution and a norm bring to ``embed_dims``: 'all', or those that have another
            number of channels ('unequal', D-FINE).
        norm_cfg: of the projections.
        train_cfg: not used; mmdet hands one to every head.
        test_cfg: see :class:`PredictionSettings`.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        in_channels: Sequence[int] = (256, 256, 256),
        embed_dims: int = 256,
        query_selector: dict[str, Any] | None = None,
        denoising: dict[str, Any] | None = None,
        decoder: dict[str, Any] | None = None,
        criterion: dict[str, Any] | None = None,
        project: Literal['all', 'unequal'] = 'all',
        norm_cfg: dict[str, Any] | None = None,
        train_cfg: dict[str, Any] | None = None,
        test_cfg: dict[str, Any] | None = None,
        init_cfg: dict[str, Any] | list[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        check_counts(num_classes=num_classes, embed_dims=embed_dims)
        check_sequence(in_channels=in_channels)
        check_choice(('all', 'unequal'), project=project)
        check_configs(
            query_selector=query_selector,
            denoising=denoising,
            decoder=decoder,
            criterion=criterion,
            norm_cfg=norm_cfg,
            test_cfg=test_cfg,
        )
        self.num_classes = num_classes
        self.prediction_settings = PredictionSettings.from_cfg(test_cfg, num_classes)
        self.input_proj = input_projections(in_channels, embed_dims, project, norm_cfg or {'type': 'BN'})
        shared = {'num_classes': num_classes, 'embed_dims': embed_dims}
        self.query_selector: QuerySelector = _build(query_selector or {'type': 'IoUAwareQuerySelector'}, **shared)
        self.denoising: DenoisingGenerator | None = _build(denoising, **shared) if denoising else None
        built = _build(decoder or {'type': 'DeformableDecoder'}, num_levels=len(in_channels), **shared)
        if self.prediction_settings.num_decoder_layers is not None:
            resolve_depth(self.prediction_settings.num_decoder_layers, built.num_layers)
        self.decoder: Decoder = built
        self.criterion: Criterion = MODELS.build(complete_criterion(criterion))
        check_decoder = getattr(self.criterion, 'check_decoder', None)
        if check_decoder is not None:
            check_decoder(self.decoder)

    def forward(self, x: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Logits (B, Q, C) and normalised ``cx, cy, w, h`` boxes (B, Q, 4) of the last decoder layer run."""
        logits, boxes, _ = self.run_parts(x).predictions
        return logits[-1], boxes[-1]

    def loss(self, x: Sequence[Tensor], batch_data_samples: SampleList) -> dict[str, Tensor]:
        """The criterion's losses of a batch; the same names whatever it holds."""
        targets = self.targets(batch_data_samples)
        return self.criterion(self.run_parts(x, batch_data_samples, targets), targets)

    def predict(self, x: Sequence[Tensor], batch_data_samples: SampleList, rescale: bool = True) -> list[InstanceData]:
        """Detections of each image, best first: ``bboxes`` (K, 4) corners in pixels, ``scores``, ``labels``.

        Args:
            rescale: boxes in the original image's pixels, by the sample's ``scale_factor`` (1 where it has none);
                otherwise in the network input's.
        """
        complete_scale_factors(batch_data_samples)
        decoded, settings = self.run_parts(x, batch_data_samples), self.prediction_settings
        logits, boxes = (layers[-1].float() for layers in decoded.predictions[:2])
        scores, labels, query = top_detections(logits, settings.max_per_img)
        if settings.keep_selected:
            keep_selected(decoded.selection, batch_data_samples, rescale=rescale)
        return [
            settings.detections(boxes[i][query[i]], scores[i], labels[i], sample.metainfo, rescale=rescale)
            for i, sample in enumerate(batch_data_samples)
        ]

    def memory(self, x: Sequence[Tensor], batch_data_samples: SampleList | None = None) -> Memory:
        """The neck's maps as one sequence, and which tokens are padding.

        Raises:
            ValueError: number of maps other than ``in_channels``.
        """
        if len(x) != len(self.input_proj):
            raise ValueError(
                f'RTDETRHead was built for {len(self.input_proj)} maps (in_channels) and was given {len(x)}; give '
                'in_channels a number for each map of the neck'
            )
        maps = [proj(level) for proj, level in zip(self.input_proj, x)]
        shapes = tuple((level.shape[-2], level.shape[-1]) for level in maps)
        tokens = torch.cat([as_tokens(level) for level in maps], dim=1)
        padding = None if batch_data_samples is None else padding_of(batch_data_samples, shapes, tokens.device)
        return Memory(tokens, shapes, padding, maps=tuple(maps) if is_captured() else None)

    def targets(self, batch_data_samples: SampleList) -> Targets:
        """Ground truth in the head's frame; see :func:`.targets_of` for what is raised."""
        return targets_of(batch_data_samples, self.num_classes)

    def run_parts(
        self, x: Sequence[Tensor], batch_data_samples: SampleList | None = None, targets: Targets | None = None
    ) -> Decoded:
        """Select and decode: in training with denoising queries, in prediction as many and as deep as the settings say.

        Args:
            batch_data_samples: None: the maps hold no padding.
            targets: None: there are no denoising queries.
        """
        memory, settings = self.memory(x, batch_data_samples), self.prediction_settings
        if self.training:
            return select_and_decode(memory, self.query_selector, self.decoder, self.denoising, targets)
        return select_and_decode(
            memory,
            self.query_selector,
            self.decoder,
            num_queries=settings.num_queries,
            num_layers=settings.num_decoder_layers,
        )


def complete_criterion(cfg: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """A criterion's config; what a ``SetCriterion``'s leaves out is that of :data:`CRITERION`."""
    cfg = cfg or {}
    return {**CRITERION, **cfg} if type_name(cfg, default='SetCriterion') == 'SetCriterion' else cfg


def _build(cfg: dict[str, Any], **shared: Any) -> Any:
    """Build a part, the config itself untouched; ``shared`` values stand in for keys that it lacks."""
    return MODELS.build({**shared, **cfg})
