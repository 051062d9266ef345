"""Predictions of ours in the form that the criteria of the authors' codes are given.

Views of the same tensors, so that both sides compute gradients of the same leaves.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ...structures import Decoded, Predictions

Layers = list[dict[str, Any]]


def constants(decoded: Decoded) -> dict[str, Any]:
    """What does not depend on the predictions: where the positives stand in each image, how far edges may be moved."""
    denoising, refinement = decoded.denoising, decoded.predictions.refinement
    assert denoising is not None
    image, query, _ = denoising.pairs
    images = decoded.predictions.logits.shape[1]
    outputs: dict[str, Any] = {
        'dn_meta': {
            'dn_positive_idx': [query[image == i] for i in range(images)],
            'dn_num_group': denoising.num_groups,
            'dn_num_split': [decoded.num_denoising, decoded.num_matching],
        }
    }
    if refinement is not None:
        values, scale = refinement.bin_values, refinement.reg_scale
        outputs.update(up=values[-1:] / (2 * scale), reg_scale=values.new_tensor([scale]))
    return outputs


def rtdetr_outputs(decoded: Decoded) -> dict[str, Any]:
    """As RT-DETR's decoder gives them in training; the encoder's count among the auxiliary ones."""
    noisy, matching = decoded.split()
    *earlier, last = _layers(matching.logits, matching.boxes)
    return {**last, 'aux_outputs': earlier + _encoder(decoded), 'dn_aux_outputs': _layers(noisy.logits, noisy.boxes)}


def rtdetrv2_outputs(decoded: Decoded) -> dict[str, Any]:
    """As RT-DETRv2's decoder gives them in training, and DEIM's of it, which has another name for denoising."""
    noisy, matching = decoded.split()
    *earlier, last = _layers(matching.logits, matching.boxes)
    return {
        **last,
        'aux_outputs': earlier,
        'enc_aux_outputs': _encoder(decoded),
        'enc_meta': {'class_agnostic': False},
        'dn_aux_outputs': _layers(noisy.logits, noisy.boxes),
        'dn_outputs': _layers(noisy.logits, noisy.boxes),
    }


def dfine_outputs(decoded: Decoded) -> dict[str, Any]:
    """As D-FINE's decoder gives them in training, and DEIM's."""
    noisy, matching = decoded.split()
    *earlier, last = _refined_layers(matching)
    return {
        **{key: value for key, value in last.items() if not key.startswith('teacher')},
        'aux_outputs': earlier,
        'pre_outputs': _initial(matching),
        'enc_aux_outputs': _encoder(decoded),
        'enc_meta': {'class_agnostic': False},
        'dn_outputs': _refined_layers(noisy),
        'dn_pre_outputs': _initial(noisy),
    }


def _layers(logits: Tensor, boxes: Tensor) -> Layers:
    return [{'pred_logits': layer, 'pred_boxes': of_layer} for layer, of_layer in zip(logits, boxes)]


def _encoder(decoded: Decoded) -> Layers:
    assert decoded.selection.encoder is not None
    return _layers(decoded.selection.encoder.logits, decoded.selection.encoder.boxes)


def _initial(predictions: Predictions) -> dict[str, Any]:
    assert predictions.refinement is not None
    [initial] = _layers(predictions.refinement.initial_logits, predictions.refinement.initial_boxes)
    return initial


def _refined_layers(predictions: Predictions) -> Layers:
    assert predictions.refinement is not None
    edge_logits = predictions.refinement.corners.flatten(-2)
    common = {
        'ref_points': predictions.refinement.initial_boxes[0].detach(),
        'teacher_corners': edge_logits[-1],
        'teacher_logits': predictions.logits[-1],
    }
    layers = _layers(predictions.logits, predictions.boxes)
    return [{**layer, 'pred_corners': of_layer, **common} for layer, of_layer in zip(layers, edge_logits)]
