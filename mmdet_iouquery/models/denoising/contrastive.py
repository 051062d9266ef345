"""Denoising, contrastive or not."""

from __future__ import annotations

import logging
from typing import Any

from mmdet.registry import MODELS
from mmengine.logging import print_log
from mmengine.model import BaseModule
from torch import nn

from ...argument_checks import check_counts, check_flags, check_numbers
from ...core import denoising_layout, noisy_truth
from ...core.denoising import check_groups
from ...structures import DenoisingQueries, Queries, Targets

BOX_NOISES = ('corners', 'centre_size')


@MODELS.register_module()
class ContrastiveDenoising(BaseModule):
    """Queries made of noisy ground truth, which the decoder must restore or, when far off, reject (DINO, section 3.3).

    With ``contrastive=False``, ``box_noise='centre_size'``, ``num_groups=5``, ``label_noise_ratio=0.4`` and
    ``box_noise_scale=0.4`` it is that of DN-DETR, whose queries are all to be restored.

    Args:
        num_classes: number of classes, C.
        embed_dims: width D of the queries.
        num_denoising: positives to aim at; never more, and at most as many negatives, whatever the number of boxes: an
            image with more gives a random choice of them, which is said once in the log.
        contrastive: with negatives, which are to be called background.
        num_groups: groups of each image's boxes; None: as many as ``num_denoising`` has room for.
        label_noise_ratio: half of it is the probability that a label is replaced by a random one.
        box_noise_scale: how far boxes move, in the unit that ``box_noise`` sets; 0: not at all.
        box_noise: 'corners' (DINO) or 'centre_size' (DN-DETR); see :func:`mmdet_iouquery.core.noisy_truth`.

    Raises:
        ValueError: numbers out of range, an unknown ``box_noise``, or 'centre_size' for negatives.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        embed_dims: int = 256,
        num_denoising: int = 100,
        contrastive: bool = True,
        num_groups: int | None = None,
        label_noise_ratio: float = 0.5,
        box_noise_scale: float = 1.0,
        box_noise: str = 'corners',
        init_cfg: dict[str, Any] | list[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        check_counts(num_classes=num_classes, embed_dims=embed_dims)
        check_counts(least=None, num_denoising=num_denoising, num_groups=0 if num_groups is None else num_groups)
        check_numbers(most=1.0, label_noise_ratio=label_noise_ratio)
        check_numbers(box_noise_scale=box_noise_scale)
        check_flags(contrastive=contrastive)
        check_groups(num_denoising, num_groups)
        if box_noise not in BOX_NOISES or (contrastive and box_noise != 'corners'):
            raise ValueError(
                f"box_noise must be one of {BOX_NOISES}, and 'corners' with contrastive=True, got {box_noise!r}"
            )
        self.num_classes = num_classes
        self.num_denoising = num_denoising
        self.contrastive = contrastive
        self.num_groups = num_groups
        self.label_noise_ratio = label_noise_ratio
        self.box_noise_scale = box_noise_scale
        self.box_noise = box_noise
        self._said_crowded = False
        # the last row stands for padding: zero, and never trained
        self.label_embedding = nn.Embedding(num_classes + 1, embed_dims, padding_idx=num_classes)

    def forward(self, targets: Targets, num_queries: int) -> DenoisingQueries:
        """Make denoising queries to stand before ``num_queries`` matching ones.

        There are always some: a batch without boxes gives padding, so that its losses have the same names and the same
        parameters take part as in any other.
        """
        self._say_crowded(max(targets.counts, default=0))
        layout = denoising_layout(
            targets.counts,
            self.num_denoising,
            contrastive=self.contrastive,
            num_groups=self.num_groups,
            device=targets.labels.device,
        )
        labels, boxes_unact = noisy_truth(
            layout,
            targets.labels,
            targets.boxes,
            self.num_classes,
            label_noise_ratio=self.label_noise_ratio,
            box_noise_scale=self.box_noise_scale,
            box_noise=self.box_noise,
        )
        queries = Queries(self.label_embedding(labels), boxes_unact)
        return DenoisingQueries(queries, layout.attention_mask(num_queries), layout.pairs, layout.num_groups)

    def _say_crowded(self, count: int) -> None:
        room = self.num_denoising // (self.num_groups or 1)
        if count > room and not self._said_crowded:
            self._said_crowded = True
            print_log(
                f'an image has {count} boxes, more than denoising has room for ({room}): of such images a random '
                'choice is denoised each time, and all are matched; num_denoising sets the room (said once)',
                logger='current',
                level=logging.WARNING,
            )
