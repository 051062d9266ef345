"""Denoising queries that are told where an object is, but sometimes not what it is."""

from __future__ import annotations

import torch
from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import nn

from mmdet_iouquery.core import denoising_layout, noisy_truth
from mmdet_iouquery.structures import DenoisingQueries, Queries, Targets


@MODELS.register_module()
class LabelDropDenoising(BaseModule):
    """Contrastive denoising (DINO, section 3.3) with labels dropped, not exchanged for others.

    A wrong label (DN-DETR, section 4.2) has to be unlearned; a hidden one, as a masked word of BERT (Devlin et al.
    2019, section 3.1), has to be read from the image.

    Args:
        num_denoising: positives at most.
        drop: the probability that a label is hidden.
        box_noise_scale: how far boxes move, in half sizes.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        embed_dims: int = 256,
        num_denoising: int = 100,
        drop: float = 0.5,
        box_noise_scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.num_classes, self.num_denoising = num_classes, num_denoising
        self.drop, self.box_noise_scale = drop, box_noise_scale
        # then a row for padding, zero and never trained, and one for a hidden label
        self.label_embedding = nn.Embedding(num_classes + 2, embed_dims, padding_idx=num_classes)

    def forward(self, targets: Targets, num_queries: int) -> DenoisingQueries:
        layout = denoising_layout(targets.counts, self.num_denoising, device=targets.labels.device)
        labels, boxes_unact = noisy_truth(
            layout,
            targets.labels,
            targets.boxes,
            self.num_classes,
            label_noise_ratio=0.0,
            box_noise_scale=self.box_noise_scale,
        )
        hidden = (torch.rand(labels.shape, device=labels.device) < self.drop) & ~layout.padded
        content = self.label_embedding(labels.masked_fill(hidden, self.num_classes + 1))
        queries = Queries(content, boxes_unact)
        return DenoisingQueries(queries, layout.attention_mask(num_queries), layout.pairs, layout.num_groups)
