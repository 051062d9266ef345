"""Detectors that tests export, narrow ones of every kind, and how an exported file is run."""

from __future__ import annotations

import collections
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from helpers import DISTILLED, FAMILY, NARROW, small_detector
from mmdet.structures import DetDataSample
from torch import Tensor, nn

SIZE = (64, 96)
_WITHOUT_DECODER = {key: value for key, value in NARROW.items() if 'decoder' not in key}
_DAB = {'_delete_': True, 'type': 'DABDecoder', 'num_layers': 2, 'num_heads': 2, 'feedforward_channels': 32}
_LEARNED = {'_delete_': True, 'num_queries': 30}

DETECTORS: dict[str, dict[str, Any]] = {
    # DEIMv2-N's layers are DEIMv2-Atto's and D-FINE's
    **{name: changes for name, changes in FAMILY.items() if name != 'DEIMv2-N'},
    'dense DAB decoder': {**_WITHOUT_DECODER, 'bbox_head__decoder': _DAB},
    'deformable DAB decoder': {
        **_WITHOUT_DECODER,
        'bbox_head__decoder': {**_DAB, 'cross_attention': 'deformable', 'num_levels': 3},
    },
    'learned anchors': {
        **NARROW,
        'bbox_head__query_selector': {**_LEARNED, 'type': 'LearnedAnchors', 'num_patterns': 3},
    },
    'learned embeddings': {**NARROW, 'bbox_head__query_selector': {**_LEARNED, 'type': 'LearnedEmbeddings'}},
    'class pairs by score times IoU': {
        **NARROW,
        'bbox_head__query_selector__type': 'ScoreTimesIoUQuerySelector',
        'bbox_head__query_selector__rank': 'token_class',
    },
    'learned content': {**NARROW, 'bbox_head__query_selector__learned_content': True},
    'distilled': {**NARROW, **DISTILLED},  # as RT-DETRv4's students
    'four levels': {**NARROW, 'neck__num_outs': 4, 'bbox_head__in_channels': [32] * 4},
}


def detector(name: str = 'RT-DETR', **changes: object) -> nn.Module:
    """In evaluation mode; boxes are not just their anchors, as they are before training."""
    model = small_detector(**{**(DETECTORS.get(name) or FAMILY[name]), **changes}).eval()
    for parameter in model.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    return model


def run(path: Path, *inputs: Tensor) -> dict[str, Tensor]:
    """What a file gives for its inputs, by name."""
    session = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
    names = [value.name for value in session.get_inputs()]
    outputs = session.run(None, {name: value.numpy() for name, value in zip(names, inputs)})
    return {value.name: torch.from_numpy(np.asarray(x)) for value, x in zip(session.get_outputs(), outputs)}


def predicted(model: Any, images: Tensor, sizes: Tensor) -> list[Any]:
    """mmdet's own way: what ``predict`` says of images (B, 3, H, W), RGB, of originals of these widths and heights."""
    height, width = images.shape[-2:]
    samples = [
        DetDataSample(
            metainfo={
                'img_shape': (height, width),
                'ori_shape': (int(size[1]), int(size[0])),
                'scale_factor': (width / float(size[0]), height / float(size[1])),
            }
        )
        for size in sizes
    ]
    bgr = [image.flip(0) for image in images.byte()]  # as mmcv loads them
    data = model.data_preprocessor({'inputs': bgr, 'data_samples': samples})
    with torch.no_grad():
        results = model.predict(data['inputs'], data['data_samples'])
    return [result.pred_instances for result in results]


def distance(ours: dict[str, Tensor], expected: list[Any], sizes: Tensor) -> float:
    """The largest difference between detections of files and of mmdet, as sets: equal scores may change places.

    Of each, the nearest of the same label in score and in box, relative to the image.
    """
    farthest = 0.0
    for boxes, scores, labels, size, theirs in zip(ours['boxes'], ours['scores'], ours['labels'], sizes, expected):
        scale = torch.cat([size, size])
        ours_rows = torch.cat([boxes / scale, scores[:, None], labels[:, None].float()], dim=1)
        their_rows = torch.cat([theirs.bboxes / scale, theirs.scores[:, None], theirs.labels[:, None].float()], dim=1)
        assert ours_rows.shape == their_rows.shape
        apart = torch.cdist(ours_rows, their_rows, p=float('inf'))
        farthest = max(farthest, apart.min(0).values.max().item(), apart.min(1).values.max().item())
    return farthest


def operators(path: Path) -> collections.Counter[str]:
    """How often each operator stands in a file."""
    return collections.Counter(node.op_type for node in onnx.load(str(path)).graph.node)


def metadata(path: Path) -> dict[str, str]:
    return {entry.key: entry.value for entry in onnx.load(str(path)).metadata_props}
