"""What can be chosen at prediction time on the same weights, and the detections by it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from mmengine.structures import InstanceData
from torch import Tensor

from ...argument_checks import check_configs, check_counts, check_flags, check_numbers
from ...core import without_overlaps
from ...core.calibration import piecewise_linear
from ...errors import InputError
from ..data_samples import boxes_in_px

_OF_OTHER_HEADS = ('nms', 'nms_pre', 'min_bbox_size', 'multi_label', 'yolox_style')


@dataclass(frozen=True)
class PredictionSettings:
    """The head's ``test_cfg``."""

    max_per_img: int = 300
    """Detections kept an image, the best (query, class) pairs."""
    score_thr: float | Sequence[float] = 0.0
    """Detections must score above this, in [0, 1): one number, or one for each class."""
    overlap_thr: float | None = None
    """Of detections that overlap by more than this IoU, whatever their classes, only the best is kept; None: all are. A
    trained RT-DETR needs no such thing."""
    calibration: Mapping[str, Sequence[float]] | None = None
    """``dict(scores=[...], precision=[...])``, as ``iouquery calibrate`` writes it: each score becomes the precision
    that belongs to it, by straight lines between the points given, in double precision. Both rise strictly, ``scores``
    from 0 to 1, so the ranking is the same. ``score_thr`` is of scores before this. None: they stay as they are."""
    num_queries: int | None = None
    """Queries selected; at most the image's number of tokens. None: as trained."""
    num_decoder_layers: int | None = None
    """Decoder layers run; negative: counted back from the last. None: all."""
    keep_selected: bool = False
    """Also put the selected queries into the data samples, for ``QuerySelectionMetric``."""

    @classmethod
    def from_cfg(cls, cfg: dict[str, Any] | None, num_classes: int) -> PredictionSettings:
        """Read a ``test_cfg``. Keys that only steer other heads' NMS are passed over.

        Raises:
            ValueError: an unknown key or a value out of range.
        """
        cfg = {key: value for key, value in (cfg or {}).items() if key not in _OF_OTHER_HEADS}
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(cfg) - set(known))
        if unknown:
            raise ValueError(
                f'test_cfg has {unknown}, which RTDETRHead does not know; it knows {known}: correct or remove it'
            )
        settings = cls(**cfg)
        for name in ('max_per_img', 'num_queries'):
            value = getattr(settings, name)
            if value is not None or name == 'max_per_img':
                check_counts(**{f'test_cfg.{name}': value})
        if settings.num_decoder_layers is not None:
            check_counts(least=None, **{'test_cfg.num_decoder_layers': settings.num_decoder_layers})
        check_flags(**{'test_cfg.keep_selected': settings.keep_selected})
        thresholds = settings.score_thr if isinstance(settings.score_thr, Sequence) else [settings.score_thr]
        check_numbers(**{f'test_cfg.score_thr[{i}]': value for i, value in enumerate(thresholds)})
        if not all(0 <= threshold < 1 for threshold in thresholds):
            raise ValueError(f'test_cfg.score_thr must lie in [0, 1), got {settings.score_thr}')
        if isinstance(settings.score_thr, Sequence) and len(thresholds) != num_classes:
            raise ValueError(
                f'test_cfg.score_thr has {len(thresholds)} numbers for {num_classes} classes; give one number, or one '
                'for each class'
            )
        if settings.overlap_thr is not None:
            check_numbers(most=1.0, **{'test_cfg.overlap_thr': settings.overlap_thr})
        if settings.calibration is not None:
            _check_calibration(settings.calibration)
        return settings

    def detections(
        self, boxes: Tensor, scores: Tensor, labels: Tensor, meta: dict[str, Any], *, rescale: bool
    ) -> InstanceData:
        """An image's results, of normalised boxes (K, 4), best first, scores and labels (K,): cut at the image, in px.

        Args:
            meta: the image's ``metainfo``.
            rescale: px of the image as it came; otherwise of the network's input.
        """
        boxes_px = boxes_in_px(boxes, meta, rescale=False)
        limit = boxes_px.new_tensor([*meta['img_shape'][1::-1]] * 2)
        boxes_px = boxes_px.clamp(min=0).minimum(limit)
        if rescale:
            boxes_px = boxes_px / boxes_px.new_tensor([*meta['scale_factor']] * 2)
        kept = InstanceData(bboxes=boxes_px, scores=scores, labels=labels)
        if self.score_thr:
            thresholds = scores.new_tensor(self.score_thr)
            kept = kept[kept.scores > (thresholds[labels] if thresholds.dim() else thresholds)]
        if self.overlap_thr is not None:
            kept = kept[without_overlaps(kept.bboxes, self.overlap_thr)]
        if self.calibration is not None:
            kept.scores = piecewise_linear(kept.scores, *(self.calibration[k] for k in ('scores', 'precision')))
        return kept


def _check_calibration(calibration: Mapping[str, Sequence[float]]) -> None:
    where = 'test_cfg.calibration'
    check_configs(**{where: calibration})
    scores, precision = (calibration.get(name) for name in ('scores', 'precision'))
    if len(calibration) != 2 or not isinstance(scores, (list, tuple)) or not isinstance(precision, (list, tuple)):
        raise InputError(f'{where} must be dict(scores=[...], precision=[...]), got {calibration}')
    for name, values in (('scores', scores), ('precision', precision)):
        check_numbers(most=1.0, **{f'{where}.{name}[{i}]': value for i, value in enumerate(values)})
    rising = all(low < high for values in (scores, precision) for low, high in zip(values, values[1:]))
    if not rising or len(scores) != len(precision) or [*scores[:1], *scores[-1:]] != [0, 1]:
        raise InputError(
            f'{where}: scores must rise strictly from 0 to 1, and precision strictly with a value for each, got '
            f'{scores} and {precision}'
        )
