"""Names of the authors' ECDet (Intellindust-AI-Lab/EdgeCrafter) beside ours: DEIMv2's, but for plainer layers."""

from __future__ import annotations

from collections.abc import Iterator

from . import dfine, vit
from .prefix_map import PrefixMap


def _layer_pairs() -> Iterator[tuple[str, str]]:
    for layer in range(dfine.MOST_LAYERS):
        theirs, ours = f'decoder.decoder.layers.{layer}.', f'bbox_head.decoder.layers.{layer}.'
        for part in ('self_attn.', 'norm1.', 'cross_attn.', 'gateway.', 'linear1.', 'linear2.'):
            yield f'{theirs}{part}', f'{ours}{part}'
        yield f'{theirs}norm2.', f'{ours}norm3.'  # the gate has one of its own


DETECTOR = PrefixMap(
    [
        *vit.ecvit_pairs('backbone.backbone.', 'backbone.vit.'),
        ('backbone.projector.', 'backbone.projections.'),
        *dfine.encoder_pairs(),
        *dfine.head_pairs(),
        *_layer_pairs(),
    ],
    "the authors' ECDet",
)
