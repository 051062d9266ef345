"""Whatever lies in a checkpoint file: it is converted rightly, key for key, or refused with a sentence."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from mmdet_iouquery.checkpoints import (
    SOURCES,
    TARGETS,
    convert,
    convert_back,
    dab_detr,
    deimv2,
    dfine,
    ecdet,
    hgnetv2,
    rtdetr,
    select_classes,
    transformers,
    vit,
)
from mmdet_iouquery.checkpoints.convert import convert_accounted
from mmdet_iouquery.checkpoints.files import damage, read_checkpoint
from mmdet_iouquery.errors import InputError

TABLES = {
    'rtdetr': rtdetr.DETECTOR,
    'rtdetrv2': rtdetr.DETECTOR_V2,
    'rtdetr_backbone': rtdetr.BACKBONE,
    'dfine': dfine.DETECTOR,
    'deimv2': deimv2.DETECTOR,
    'deimv2, ViT-tiny': deimv2.DETECTOR_TINY,
    'deimv2, DINOv3': deimv2.DETECTOR_DINOV3,
    'ecdet': ecdet.DETECTOR,
    'transformers': transformers.DETECTOR,
    'transformers, D-FINE': transformers.DETECTOR_DFINE,
    'dab_detr': dab_detr.DETECTOR,
    'hgnetv2_backbone': hgnetv2.BACKBONE,
    'vit_backbone': vit.BACKBONE,
    'vit_backbone, EdgeCrafter': vit.ECVIT,
}
ENDINGS = (
    'weight',
    'bias',
    'running_mean',
    'num_batches_tracked',
    'layers.0.weight',
    'q_proj.weight',
    'k_proj.bias',
    '',
)

shapes = st.lists(st.integers(0, 4), max_size=3).map(tuple)
tensors = st.builds(lambda shape, seed: torch.full(shape, float(seed)), shapes, st.integers(-9, 9))
prefixes = st.sampled_from(sorted({theirs for table in TABLES.values() for theirs, _ in table.pairs}))
special = st.sampled_from(
    [
        'decoder.anchors',
        'encoder.pos_embed2',
        'decoder.decoder.layers.0.cross_attn.num_points_scale',
        'decoder.up',
        'decoder.decoder.up',
        'decoder.dec_bbox_head.0.w',
        'decoder.dec_bbox_head.1.w',
        'class_embed.0.weight',
        'bbox_embed.layers.0.weight',
        'refpoint_embed.weight',
        'head.fc.weight',
        'mask_token',
        'embeddings.cls_token',
        'model.layer.0.attention.k_proj.bias',
        'blocks.0.mlp.w1.bias',
        'blocks.0.attn.qkv.bias_mask',
        'transformer.decoder.bbox_embed.layers.0.weight',
        'model.encoder.aifi.0.layers.0.self_attn.o_proj.weight',
        'model.encoder.aifi.0.layers.0.mlp.layers.1.weight',
    ]
)
keys = st.one_of(st.builds('{}{}'.format, prefixes, st.sampled_from(ENDINGS)), special, st.text(max_size=12))
anything = st.one_of(st.none(), st.integers(), st.text(max_size=5), st.lists(st.integers(), max_size=2), tensors)
contents = st.recursive(
    st.dictionaries(st.one_of(keys, st.integers()), anything, max_size=8),
    lambda inner: st.dictionaries(st.sampled_from(['ema', 'module', 'model', 'state_dict', 'meta']), inner, max_size=3),
    max_leaves=4,
)


@pytest.mark.parametrize('source', SOURCES)
@given(content=contents)
def test_any_content_is_converted_or_refused(source: str, content: dict) -> None:
    """What comes out holds each number that went in once, but for keys that are named as dropped."""
    before = sum(value.numel() for value in weights_of(content).values())
    try:
        done = convert_accounted(content, source)
    except InputError as error:
        assert str(error)
        return
    assert all(isinstance(key, str) and isinstance(value, Tensor) for key, value in done.weights.items())
    dropped = sum(len(names) for names in done.dropped.values())
    split = 'query_selector.xy_unact' in done.weights and source == 'dab_detr'
    assert done.num_read == len(done.weights) + dropped + done.num_joined - done.num_made - split
    if not dropped and not (source == 'vit_backbone' and done.num_made):  # which adds what follows from a file
        assert sum(value.numel() for value in done.weights.values()) == before or done.wrapper or done.left


def weights_of(content: Mapping) -> dict[str, Tensor]:
    return {key: value for key, value in content.items() if isinstance(value, Tensor)}


@st.composite
def weights(draw: Any, source: str) -> dict[str, Tensor]:
    """Weights under names that the source's files can have."""
    table = sorted(theirs for theirs, _ in TABLES[source].pairs)
    names = draw(st.lists(st.builds('{}{}'.format, st.sampled_from(table), st.sampled_from(ENDINGS[:4])), min_size=1))
    return {name: draw(tensors) for name in names}


@pytest.mark.parametrize('source', ['rtdetr', 'rtdetrv2', 'rtdetr_backbone', 'hgnetv2_backbone'])
@given(data=st.data())
def test_every_key_that_is_kept_comes_back(source: str, data: st.DataObject) -> None:
    theirs = data.draw(weights(source))
    ours = convert(theirs, source)
    assert ours.keys() == convert(ours, 'mmdet').keys()
    if source in TARGETS:
        back = convert_back(ours, source)
        assert back.keys() == theirs.keys() and all(back[key] is theirs[key] for key in theirs)


@given(data=st.data(), width=st.integers(1, 4))
def test_projections_are_joined_only_where_they_fit(data: st.DataObject, width: int) -> None:
    prefix = 'model.decoder.layers.0.self_attn.'
    parts = {name: data.draw(tensors) for name in data.draw(st.sets(st.sampled_from('qkv'), min_size=1))}
    if data.draw(st.booleans()):
        parts = {name: torch.full((width, width), float(ord(name))) for name in 'qkv'}
    try:
        ours = convert({f'{prefix}{name}_proj.weight': value for name, value in parts.items()}, 'transformers')
    except InputError as error:
        assert 'self_attn' in str(error)
        return
    assert torch.equal(
        ours['bbox_head.decoder.layers.0.self_attn.in_proj_weight'], torch.cat([parts[n] for n in 'qkv'])
    )


class_heads = st.sampled_from(
    [
        'bbox_head.query_selector.cls_head.weight',
        'bbox_head.decoder.cls_heads.0.bias',
        'decoder.cls_heads.1.weight',
        'bbox_head.denoising.label_embedding.weight',
        'neck.weight',
    ]
)
class_names = st.lists(st.sampled_from(['cat', 'Cat', 'dog', 'cow', '', 'ant']), max_size=4)


@given(weights=st.dictionaries(class_heads, tensors, max_size=4), source=class_names, target=class_names)
def test_other_classes_or_a_sentence(weights: dict[str, Tensor], source: list[str], target: list[str]) -> None:
    try:
        selected, kept, fresh = select_classes(weights, source, target)
    except InputError as error:
        assert str(error)
        return
    assert selected.keys() == weights.keys() and sorted(kept + fresh) == sorted(target)
    for key, value in selected.items():
        rows = {'neck.weight': len(weights[key]) if weights[key].dim() else 0}.get(key, len(target))
        assert value.dim() == weights[key].dim() and (value.dim() == 0 or len(value) == rows + ('label' in key))


def written(zipped: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save({'state_dict': {'w': torch.arange(24.0)}, 'n': 3}, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


WRITTEN = {True: written(True), False: written(False)}


def read(path: Path) -> Mapping | None:
    """The content of a file, None when it was refused."""
    try:
        return read_checkpoint(path)
    except InputError as error:
        assert path.name in str(error) and '\n' not in str(error)
        return None


@given(content=st.binary(max_size=300), suffix=st.sampled_from(['.pth', '.bin', '.safetensors']))
def test_random_bytes_are_no_checkpoint(tmp_path: Path, content: bytes, suffix: str) -> None:
    if suffix == '.safetensors':
        pytest.importorskip('safetensors')
    path = tmp_path / f'a{suffix}'
    path.write_bytes(content)
    assert damage(path) is not None or suffix == '.safetensors'
    assert read(path) in (None, {})


@given(length=st.floats(0, 1, exclude_max=True))
@pytest.mark.parametrize('zipped', [True, False])
def test_a_part_of_a_checkpoint_is_none(tmp_path: Path, zipped: bool, length: float) -> None:
    path, whole = tmp_path / 'a.pth', WRITTEN[zipped]
    path.write_bytes(whole[: math.floor(length * len(whole))])
    assert damage(path) is not None and read(path) is None


@example(flips=[(0.5, 0), (0.9785, 0)])  # a number, and a directory that zipfile refuses and torch accepts
@example(flips=[(0.8495, 4)])  # a tensor marked as a folder
@given(flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 7)), min_size=1, max_size=3))
@pytest.mark.parametrize('zipped', [True, False])
def test_flipped_bits_are_found_or_do_not_matter(tmp_path: Path, zipped: bool, flips: list[tuple[float, int]]) -> None:
    """The old format has no checksums, so there another number may be read; but nothing breaks."""
    path, content = tmp_path / 'a.pth', bytearray(WRITTEN[zipped])
    for share, bit in flips:
        content[math.floor(share * len(content))] ^= 1 << bit
    path.write_bytes(content)
    actual = read(path)
    if zipped and actual is not None:
        assert torch.equal(actual['state_dict']['w'], torch.arange(24.0)) and actual['n'] == 3
