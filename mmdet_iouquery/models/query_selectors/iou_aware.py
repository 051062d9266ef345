"""IoU-aware (uncertainty-minimal) query selection."""

from __future__ import annotations

from mmdet.registry import MODELS

from .encoder_tokens import EncoderTokenSelector


@MODELS.register_module()
class IoUAwareQuerySelector(EncoderTokenSelector):
    """Take the encoder tokens whose class score, trained to be the box's IoU, is highest (RT-DETR, section 4.3).

    The criterion supervises the chosen tokens' class scores with the IoU of their boxes (a varifocal loss), so the
    score learns to tell where both class and box are good, and ranking by it is IoU-aware (equations 2 and 3).

    **Trained**: projection, class and box head, and the encoder below, by the encoder's losses. **Detached**: content
    and anchors of the queries. Arguments as for :class:`.encoder_tokens.EncoderTokenSelector`.
    """

    iou_aware = True
