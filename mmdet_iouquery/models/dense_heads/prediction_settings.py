"""What can be chosen at prediction time on the same weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

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
            raise ValueError(f'test_cfg has {unknown}, which RTDETRHead does not know; it knows {known}')
        settings = cls(**cfg)
        for name in ('max_per_img', 'num_queries'):
            value = getattr(settings, name)
            if value is not None and value < 1:
                raise ValueError(f'test_cfg.{name} must be at least 1, got {value}')
        thresholds = settings.score_thr if isinstance(settings.score_thr, Sequence) else [settings.score_thr]
        if not all(0 <= threshold < 1 for threshold in thresholds):
            raise ValueError(f'test_cfg.score_thr must lie in [0, 1), got {settings.score_thr}')
        if isinstance(settings.score_thr, Sequence) and len(thresholds) != num_classes:
            raise ValueError(f'test_cfg.score_thr has {len(thresholds)} numbers for {num_classes} classes')
        if settings.overlap_thr is not None and not 0 <= settings.overlap_thr <= 1:
            raise ValueError(f'test_cfg.overlap_thr must lie in [0, 1], got {settings.overlap_thr}')
        return settings
