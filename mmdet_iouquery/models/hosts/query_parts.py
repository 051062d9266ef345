"""What the adapters of mmdet's detectors have in common: parts by name, and the parent for everything else."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from mmdet.registry import MODELS
from mmdet.structures import OptSampleList, SampleList
from mmengine.model import BaseModule
from torch import Tensor, nn

from ...argument_checks import check_configs
from ...errors import InputError
from ...structures import (
    Assigner,
    Decoded,
    Decoder,
    DenoisingGenerator,
    DenoisingQueries,
    Memory,
    Predictions,
    Queries,
    Selection,
    Targets,
)
from ..data_samples import complete_scale_factors, extent_of, keep_selected, targets_of
from ..losses import PerImageAssigner, SetCriterion
from ..pipeline import select_and_decode

PART_NAMES = ('query_selector', 'denoising', 'decoder')


@dataclass
class Step:
    """One batch on its way through the parent's modules."""

    encoded: dict[str, Any]
    """What the parent's encoder gave."""
    decoder_inputs: dict[str, Any]
    """What the parent's decoder takes beside it."""
    samples: OptSampleList
    denoising: DenoisingQueries | None = None
    """The parent's, where it makes them together with its queries."""


class Unused(nn.Module):
    """Stands where a module of the parent's stood that nothing uses any more: no parameters, no names in a checkpoint.

    The parent's ``init_weights`` finds something to write on.
    """

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = torch.empty(4, 4), torch.empty(4)

    def __getitem__(self, index: int) -> Unused:
        return self

    @property
    def layers(self) -> Unused:
        """Itself, for a parent that looks for the last layer of an MLP."""
        return self


class QueryParts(BaseModule):
    """Mixed into a detection transformer of mmdet's: parts that the config names take the place of the parent's.

    With none named it is the parent: same parameters, names and outputs. With one named, everything else is still the
    parent's, and the losses are those that the parent's head was configured with, its assigner's costs included; box
    and class heads of a named decoder are the decoder's own. Boxes are normalised by each image's own width and height,
    as mmdet's are.

    Args:
        query_selector: any selector; None: the parent's queries.
        denoising: a denoising generator; None: none, or the parent's own.
        decoder: the parent's settings as they are, or, with a ``type``, a decoder of this package.
        quality: soft target of a quality-aware ``loss_cls``; see
            :class:`~mmdet_iouquery.models.losses.SetCriterion`.
        criterion: ``union_matching``, ``loss_fgl`` and ``loss_ddf`` of the same; None: without. Assigner and other
            losses are the parent's head's; its ``train_cfg.assigner`` may be a ``BatchedHungarianAssigner``.
        bbox_head, others: the parent's; none of the dicts is changed.

    Raises:
        ValueError: a part that makes no sense in this detector, or one with a softmax classification loss.
    """

    _placeholder_layer: ClassVar[dict[str, Any]] = {}
    """Settings of a layer of the parent's decoder, enough to build one that is then replaced."""
    _refused: ClassVar[dict[str, str]] = {}
    """Part to the reason why this detector takes none."""
    _denoises = False
    """Whether the parent has denoising queries of its own."""
    _needs_boxes = False
    """Whether the parent's decoder knows queries by their boxes alone."""

    def __init__(
        self,
        *,
        bbox_head: dict[str, Any],
        decoder: dict[str, Any],
        query_selector: dict[str, Any] | None = None,
        denoising: dict[str, Any] | None = None,
        quality: str = 'iou',
        criterion: dict[str, Any] | None = None,
        **others: Any,
    ) -> None:
        _check_criterion(criterion)
        named = {'query_selector': query_selector, 'denoising': denoising}
        named['decoder'] = decoder if 'type' in decoder else None
        parts = {name: cfg for name, cfg in named.items() if cfg is not None}
        self._check_parts(parts, others)
        shared = {'num_classes': bbox_head['num_classes'], 'embed_dims': bbox_head.get('embed_dims', 256)}
        built = {name: self._build(name, cfg, shared, others) for name, cfg in parts.items()}
        self._check_anchors(built)
        if 'decoder' in built:
            decoder = {'num_layers': built['decoder'].num_layers, 'layer_cfg': self._placeholder_layer}
            decoder.update(self._placeholder_decoder)
        # the parents write into the configs they are given
        super().__init__(bbox_head=copy.deepcopy(bbox_head), decoder=copy.deepcopy(decoder), **copy.deepcopy(others))
        self._part_names = tuple(built)
        own_assigner = callable(getattr(self.bbox_head, 'assigner', None))
        self.has_parts = bool(built) or quality != 'iou' or bool(criterion) or own_assigner
        for name, part in built.items():
            setattr(self, name, part)
        for name in PART_NAMES:
            if not hasattr(self, name):
                setattr(self, name, None)
        if self.has_parts:
            self._check_loss()
            self._leave_out_unused()
            self._add_criterion(quality, **(criterion or {}))

    _placeholder_decoder: ClassVar[dict[str, Any]] = {}

    # ---- what each host says -------------------------------------------------------------------------------------

    def _num_levels(self, others: dict[str, Any]) -> int:
        raise NotImplementedError

    def _leave_out_unused(self) -> None:
        """Put :class:`Unused` in place of the parent's modules that the named parts make idle."""
        raise NotImplementedError

    def _memory(self, encoded: dict[str, Any], decoder_inputs: dict[str, Any], shapes: Any, extent: Any) -> Memory:
        raise NotImplementedError

    def _select(self, step: Step, memory: Memory, num_queries: int | None = None) -> Selection:
        """The named selector's queries, or the parent's."""
        if self.query_selector is None:
            return self._parents_selection(step, memory)
        return self.query_selector(memory, num_queries)

    def _parents_selection(self, step: Step, memory: Memory) -> Selection:
        """The parent's queries as a selection."""
        raise NotImplementedError

    def _parents_denoising(self, step: Step, targets: Targets, num_queries: int) -> DenoisingQueries:
        """The parent's own denoising queries, where it :attr:`_denoises`."""
        raise NotImplementedError

    def _parents_decoder(
        self,
        step: Step,
        queries: Queries,
        memory: Memory,
        attention_mask: Tensor | None = None,
        num_layers: int | None = None,
    ) -> Predictions:
        """Predictions of the parent's decoder and head, of all its layers."""
        raise NotImplementedError

    # ---- construction --------------------------------------------------------------------------------------------

    def _check_parts(self, parts: dict[str, dict[str, Any]], others: dict[str, Any]) -> None:
        for name, reason in self._refused.items():
            if name in parts:
                raise ValueError(f'{type(self).__name__} takes no {name}: {reason}')

    def _check_anchors(self, built: dict[str, nn.Module]) -> None:
        selector = built.get('query_selector')
        if self._needs_boxes and 'decoder' not in built and not getattr(selector, 'has_anchors', True):
            raise ValueError(
                f"{type(selector).__name__} are no boxes, and mmdet's decoder in {type(self).__name__} knows queries "
                'by their boxes; name LearnedAnchors, or a decoder of this package, which takes both'
            )

    def _build(self, name: str, cfg: dict[str, Any], shared: dict[str, Any], others: dict[str, Any]) -> nn.Module:
        if name == 'query_selector':
            shared = {**shared, 'num_queries': others.get('num_queries', 100)}
        elif name == 'decoder':
            shared = {**shared, 'num_levels': self._num_levels(others)}
        return MODELS.build({**shared, **cfg})

    def _check_loss(self) -> None:
        if not self.bbox_head.loss_cls.use_sigmoid:
            raise ValueError(
                f'{type(self).__name__}: parts of this package score each class by a sigmoid, but '
                f'bbox_head.loss_cls is {type(self.bbox_head.loss_cls).__name__} with a softmax; name a sigmoid loss '
                'there, such as '
                "dict(type='IoUVarifocalLoss') or dict(type='FocalLoss', use_sigmoid=True), and a FocalLossCost in "
                'train_cfg.assigner.match_costs'
            )

    def _add_criterion(self, quality: str, **settings: Any) -> None:
        head = self.bbox_head
        self.criterion = SetCriterion(
            assigner=self._assigner(),
            loss_cls=head.loss_cls,
            loss_bbox=head.loss_bbox,
            loss_iou=head.loss_iou,
            quality=quality,
            **settings,
        )
        self.criterion.check_decoder(self.decoder)

    def _assigner(self) -> Assigner:
        """The parent's, as the criterion calls one."""
        return PerImageAssigner.of(getattr(self.bbox_head, 'assigner', None))

    def init_weights(self) -> None:
        """The parent's initialisation for the parent's modules; named parts keep their own."""
        parts = {name: getattr(self, name) for name in self._part_names}
        for name in parts:
            setattr(self, name, Unused())
        super().init_weights()
        for name, part in parts.items():
            setattr(self, name, part)
            part.init_weights()

    def why_untraceable(self) -> str | None:
        """Why :meth:`run_parts` can't tell what each query is; None: it can."""
        return None

    # ---- running -------------------------------------------------------------------------------------------------

    def loss(self, batch_inputs: Tensor, batch_data_samples: SampleList) -> dict[str, Tensor] | list[Any]:
        """The parent's losses, or, with parts, those of the criterion: the same names whatever the batch holds."""
        if not self.has_parts:
            return super().loss(batch_inputs, batch_data_samples)
        targets = self.targets(batch_data_samples)
        return self.criterion(self.run_parts(self.extract_feat(batch_inputs), batch_data_samples, targets), targets)

    def predict(self, batch_inputs: Tensor, batch_data_samples: SampleList, rescale: bool = True) -> SampleList:
        """Detections, by the parent's post-processing; a sample without ``scale_factor`` counts as not resized."""
        complete_scale_factors(batch_data_samples)
        if not self.has_parts:
            return super().predict(batch_inputs, batch_data_samples, rescale)
        decoded = self.run_parts(self.extract_feat(batch_inputs), batch_data_samples)
        logits, boxes, _ = decoded.predictions
        if (self.test_cfg or {}).get('keep_selected'):
            keep_selected(decoded.selection, batch_data_samples, by_image=True, rescale=rescale)
        metas = [sample.metainfo for sample in batch_data_samples]
        results = self._post_process(logits, boxes, batch_img_metas=metas, rescale=rescale)
        return self.add_pred_to_datasample(batch_data_samples, results)

    def _post_process(self, *predictions: Tensor, **settings: Any) -> list[Any]:
        return self.bbox_head.predict_by_feat(*predictions, **settings)

    def _forward(self, batch_inputs: Tensor, batch_data_samples: OptSampleList = None) -> Any:
        if not self.has_parts:
            return super()._forward(batch_inputs, batch_data_samples)
        targets = self.targets(batch_data_samples) if self.training and batch_data_samples else None
        return tuple(self.run_parts(self.extract_feat(batch_inputs), batch_data_samples, targets).predictions[:2])

    def targets(self, batch_data_samples: SampleList) -> Targets:
        """Ground truth in each image's frame; see :func:`.targets_of` for what is raised."""
        return targets_of(batch_data_samples, self.bbox_head.num_classes, by_image=True)

    def run_parts(
        self, img_feats: Sequence[Tensor], batch_data_samples: OptSampleList, targets: Targets | None = None
    ) -> Decoded:
        """Encode, select, decode, each by the named part or the parent.

        Args:
            targets: None: there are no denoising queries.
        """
        encoder_inputs, decoder_inputs = self.pre_transformer(img_feats, batch_data_samples)
        encoded = self.forward_encoder(**encoder_inputs)
        shapes = tuple((x.shape[-2], x.shape[-1]) for x in img_feats)
        extent = extent_of(batch_data_samples, img_feats[0].device) if batch_data_samples else None
        memory = self._memory(encoded, decoder_inputs, shapes, extent)

        step = Step(encoded, decoder_inputs, batch_data_samples)
        denoising: DenoisingGenerator | None = self.denoising
        if denoising is None and self._denoises:
            denoising = partial(self._parents_denoising, step)
        decoder: Decoder = self.decoder if 'decoder' in self._part_names else partial(self._parents_decoder, step)
        return select_and_decode(
            memory, partial(self._select, step), decoder, denoising if self.training else None, targets
        )


def _check_criterion(criterion: Any) -> None:
    check_configs(criterion=criterion)
    known = ('union_matching', 'loss_fgl', 'loss_ddf')
    for name in criterion or {}:
        if name not in known:
            raise InputError(
                f"criterion has {name!r}; beside a host's own losses and assigner, which bbox_head and train_cfg set, "
                f'it knows {", ".join(known)}'
            )
