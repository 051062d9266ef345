"""Contrastive denoising."""

from __future__ import annotations

from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import nn

from ...core import contrastive_noise, denoising_layout
from ...structures import DenoisingQueries, Queries, Targets


@MODELS.register_module()
class ContrastiveDenoising(BaseModule):
    """Queries made of noisy ground truth, which the decoder must restore or, when far off, reject (DINO, section 3.3).

    Args:
        num_classes: C.
        embed_dims: width D of the queries.
        num_denoising: positives to aim at; there are at most as many negatives, whatever the number of boxes.
        label_noise_ratio: half of it is the probability that a label is replaced by a random one.
        box_noise_scale: how far a corner moves, in half sizes of the box; 0: not at all.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        embed_dims: int = 256,
        num_denoising: int = 100,
        label_noise_ratio: float = 0.5,
        box_noise_scale: float = 1.0,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        if num_denoising < 1:
            raise ValueError(f'num_denoising must be at least 1, got {num_denoising}; set denoising=None to do without')
        self.num_classes = num_classes
        self.num_denoising = num_denoising
        self.label_noise_ratio = label_noise_ratio
        self.box_noise_scale = box_noise_scale
        # the last row stands for padding: zero, and never trained
        self.label_embedding = nn.Embedding(num_classes + 1, embed_dims, padding_idx=num_classes)

    def forward(self, targets: Targets, num_queries: int) -> DenoisingQueries:
        """Make denoising queries to stand before ``num_queries`` matching ones.

        There are always some: a batch without boxes gives padding, so that its losses have the same names and the same
        parameters take part as in any other.
        """
        layout = denoising_layout(targets.counts, self.num_denoising, device=targets.labels.device)
        labels, boxes_unact = contrastive_noise(
            layout,
            targets.labels,
            targets.boxes,
            self.num_classes,
            label_noise_ratio=self.label_noise_ratio,
            box_noise_scale=self.box_noise_scale,
        )
        queries = Queries(self.label_embedding(labels), boxes_unact)
        return DenoisingQueries(queries, layout.attention_mask(num_queries), layout.pairs, layout.num_groups)
