"""Between mmdet's data samples and tensors: boxes and padding, in the frame of the padded input or of each image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.structures import SampleList
from mmdet.structures.bbox import get_box_tensor
from mmengine.structures import InstanceData
from torch import Tensor

from ..core import box_cxcywh_to_xyxy, box_xyxy_to_cxcywh
from ..structures import Selection, Targets


def targets_of(samples: SampleList, num_classes: int, *, by_image: bool = False) -> Targets:
    """Ground truth of a batch, boxes normalised by width and height of the padded input.

    Args:
        by_image: normalise by each image's own width and height instead.

    Raises:
        ValueError: a label outside [0, num_classes) or a box with NaN or infinity, naming the image. What lies on an
            accelerator is not looked at, as that would make it wait; what the data set's files hold is checked before
            training starts.
    """
    labels, boxes = [], []
    for sample in samples:
        instances = sample.gt_instances
        _check_labels(instances.labels, num_classes, sample)
        _check_boxes(get_box_tensor(instances.bboxes), sample)
        height, width = sample.metainfo['img_shape' if by_image else 'batch_input_shape'][:2]
        boxes_px = get_box_tensor(instances.bboxes).float()
        boxes.append(box_xyxy_to_cxcywh(boxes_px / boxes_px.new_tensor([width, height, width, height])))
        labels.append(instances.labels)
    return Targets(torch.cat(labels), torch.cat(boxes), tuple(of_image.shape[0] for of_image in labels))


def _check_labels(labels: Tensor, num_classes: int, sample: object) -> None:
    if labels.device.type != 'cpu' or labels.shape[0] == 0:
        return
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        where = _name(sample)
        wrong = high if high >= num_classes else low
        raise ValueError(
            f'{where} has the label {wrong}, but the model has num_classes={num_classes}, labels '
            f'0..{num_classes - 1}; make num_classes equal the length of the data set\'s metainfo "classes"'
        )


def _check_boxes(boxes: Tensor, sample: object) -> None:
    if boxes.device.type == 'cpu' and not bool(boxes.isfinite().all()):
        raise ValueError(
            f'{_name(sample)} has the box {boxes[~boxes.isfinite().all(-1)][0].tolist()}, which is not finite; correct '
            'the annotation, or drop such boxes in the pipeline with FilterAnnotations'
        )


def _name(sample: object) -> str:
    return getattr(sample, 'img_path', None) or 'an image'


def padding_of(
    samples: SampleList, spatial_shapes: Sequence[tuple[int, int]], device: torch.device | str
) -> Tensor | None:
    """(B, N) bool, tokens whose centre lies beyond their image; None when every image fills the input."""
    height, width = samples[0].metainfo['batch_input_shape']
    extents = [tuple(sample.metainfo['img_shape'][:2]) for sample in samples]
    if all(extent == (height, width) for extent in extents):
        return None
    extent = torch.tensor(extents, dtype=torch.float32)  # (B, 2)
    levels = []
    for rows, columns in spatial_shapes:
        y = (torch.arange(rows) + 0.5) * (height / rows)
        x = (torch.arange(columns) + 0.5) * (width / columns)
        outside = (y[None, :, None] >= extent[:, 0, None, None]) | (x[None, None, :] >= extent[:, 1, None, None])
        levels.append(outside.flatten(1))
    return torch.cat(levels, dim=1).to(device)


def extent_of(samples: SampleList, device: torch.device | str) -> Tensor | None:
    """(B, 2), the part of the padded input's width and height that each image covers; None when all fill it."""
    height, width = samples[0].metainfo['batch_input_shape']
    extents = [tuple(sample.metainfo['img_shape'][:2]) for sample in samples]
    if all(extent == (height, width) for extent in extents):
        return None
    return torch.tensor([(w / width, h / height) for h, w in extents], dtype=torch.float32, device=device)


def complete_scale_factors(samples: SampleList) -> None:
    """Give a ``scale_factor`` of 1 to samples whose pipeline tells none: nothing has resized them."""
    for sample in samples:
        if sample.metainfo.get('scale_factor') is None:
            sample.set_metainfo({'scale_factor': (1.0, 1.0)})


def boxes_in_px(boxes: Tensor, meta: dict[str, Any], *, by_image: bool = False, rescale: bool = True) -> Tensor:
    """Normalised cx, cy, w, h (..., 4) of an image to corners (..., 4) in px, not cut at the image.

    Args:
        meta: the image's ``metainfo``.
        by_image: boxes refer to the image's own width and height instead of the padded input's.
        rescale: px of the image as it came; otherwise of the network's input.
    """
    height, width = meta['img_shape' if by_image else 'batch_input_shape'][:2]
    scale_x, scale_y = meta['scale_factor'] if rescale else (1.0, 1.0)
    return box_cxcywh_to_xyxy(boxes) * boxes.new_tensor([width / scale_x, height / scale_y] * 2)


def keep_selected(selection: Selection, samples: SampleList, *, by_image: bool = False, rescale: bool = True) -> None:
    """Put the encoder's predictions for the selected queries into the samples, as ``selected_queries``.

    Each gets an ``InstanceData`` of ``bboxes`` (Q, 4), see :func:`boxes_in_px`, ``scores`` (Q,), and ``labels`` (Q,)
    where classes are told apart. Samples stay as they are where the selector's encoder predicts nothing.
    """
    if selection.encoder is None:
        return
    class_agnostic = selection.encoder_target.class_agnostic
    for logits, boxes, sample in zip(selection.encoder.logits[0].float(), selection.encoder.boxes[0].float(), samples):
        best = (logits[:, :1] if class_agnostic else logits).sigmoid().max(-1)
        bboxes = boxes_in_px(boxes, sample.metainfo, by_image=by_image, rescale=rescale)
        sample.selected_queries = InstanceData(bboxes=bboxes, scores=best.values)
        if not class_agnostic:
            sample.selected_queries.labels = best.indices
