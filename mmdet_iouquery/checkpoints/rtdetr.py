"""Names of the authors' PyTorch RT-DETR and RT-DETRv2 (lyuwenyu/RT-DETR) beside ours.

Version 2 (``rtdetrv2_pytorch``) has names where version 1 (``rtdetr_pytorch``) numbers a projection and its norm.
"""

from __future__ import annotations

from collections.abc import Iterator

from .prefix_map import PrefixMap

_MOST_BLOCKS, _MOST_LEVELS = 36, 8

CONSTANTS = ('decoder.anchors', 'decoder.valid_mask', 'encoder.pos_embed')
"""Prefixes of keys that hold no weights: tables for a fixed input size, which ours computes for the size at hand."""
POINT_COUNTS = '.cross_attn.num_points_scale'
"""End of keys of version 2 that hold no weights: one over the number of points, which follows from the config."""


def _backbone(theirs: str, ours: str) -> Iterator[tuple[str, str]]:
    for i in range(3):
        yield f'{theirs}conv1.conv1_{i + 1}.conv.', f'{ours}stem.{3 * i}.'
        yield f'{theirs}conv1.conv1_{i + 1}.norm.', f'{ours}stem.{3 * i + 1}.'
    for stage in range(4):
        for block in range(_MOST_BLOCKS):
            their_block, our_block = f'{theirs}res_layers.{stage}.blocks.{block}.', f'{ours}layer{stage + 1}.{block}.'
            for i, branch in enumerate('abc'):
                yield f'{their_block}branch2{branch}.conv.', f'{our_block}conv{i + 1}.'
                yield f'{their_block}branch2{branch}.norm.', f'{our_block}bn{i + 1}.'
        # the first stage keeps its resolution: no pooling stands before its shortcut
        short, first = ('short.', 0) if stage == 0 else ('short.conv.', 1)
        for i, part in enumerate(('conv.', 'norm.')):
            projection = f'{ours}layer{stage + 1}.0.downsample.{first + i}.'
            yield f'{theirs}res_layers.{stage}.blocks.0.{short}{part}', projection


def _encoder(conv: str, norm: str) -> Iterator[tuple[str, str]]:
    for level in range(_MOST_LEVELS):
        yield f'encoder.input_proj.{level}.{conv}.', f'neck.input_proj.{level}.conv.'
        yield f'encoder.input_proj.{level}.{norm}.', f'neck.input_proj.{level}.norm.'
    for part in ('encoder.', 'lateral_convs.', 'fpn_blocks.', 'downsample_convs.', 'pan_blocks.'):
        yield f'encoder.{part}', f'neck.{part}'


def _head(proj: str, norm: str) -> Iterator[tuple[str, str]]:
    yield 'decoder.input_proj.', 'bbox_head.input_proj.'
    yield f'decoder.enc_output.{proj}.', 'bbox_head.query_selector.memory_proj.'
    yield f'decoder.enc_output.{norm}.', 'bbox_head.query_selector.memory_norm.'
    yield 'decoder.enc_score_head.', 'bbox_head.query_selector.cls_head.'
    yield 'decoder.enc_bbox_head.', 'bbox_head.query_selector.bbox_head.'
    yield 'decoder.denoising_class_embed.', 'bbox_head.denoising.label_embedding.'
    yield 'decoder.query_pos_head.', 'bbox_head.decoder.query_pos_head.'
    yield 'decoder.decoder.layers.', 'bbox_head.decoder.layers.'
    yield 'decoder.dec_score_head.', 'bbox_head.decoder.cls_heads.'
    yield 'decoder.dec_bbox_head.', 'bbox_head.decoder.bbox_heads.'


DETECTOR = PrefixMap(
    [*_backbone('backbone.', 'backbone.'), *_encoder('0', '1'), *_head('0', '1')], "the authors' RT-DETR"
)
DETECTOR_V2 = PrefixMap(
    [*_backbone('backbone.', 'backbone.'), *_encoder('conv', 'norm'), *_head('proj', 'norm')], "the authors' RT-DETRv2"
)
BACKBONE = PrefixMap(_backbone('', ''), "the authors' ResNet-vd")
