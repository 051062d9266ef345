"""Query selection by class score alone."""

from __future__ import annotations

from mmdet.registry import MODELS

from .encoder_tokens import EncoderTokenSelector


@MODELS.register_module()
class ClassScoreQuerySelector(EncoderTokenSelector):
    """Take the encoder tokens whose class score is highest, the score being trained to tell the class alone.

    The "vanilla" selection of Deformable DETR's two stages (section 4.2), Efficient DETR and DINO: nothing ties a high
    score to a good box. The same modules as :class:`.iou_aware.IoUAwareQuerySelector`; the criterion trains the chosen
    tokens' scores towards 1 for the matched class whatever the box's IoU, and nothing else differs.

    **Trained**: projection, class and box head, and the encoder below, by the encoder's losses. **Detached**: content
    and anchors of the queries. Arguments as for :class:`.encoder_tokens.EncoderTokenSelector`.
    """

    iou_aware = False
