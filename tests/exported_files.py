"""Small files of the exported format: detections depend on the pixels, in a way that NumPy repeats in a few lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from iouquery_runtime.backends import openvino_core

NAMES = ('person', 'dog', 'Fahrrad ü')
SIDE, CELL = 64, 16
QUERIES, MAX_PER_IMG = (SIDE // CELL) ** 2, 10
_RANDOM = np.random.default_rng(0)
CLASS_WEIGHT = 12 * _RANDOM.normal(size=(3, 3)).astype(np.float32)
CLASS_BIAS = -CLASS_WEIGHT.sum(0) / 2  # of a grey image, so that all classes are found in coloured ones
BOX_WEIGHT = 6 * _RANDOM.normal(size=(3, 4)).astype(np.float32)
BOX_BIAS = -BOX_WEIGHT.sum(0) / 2 - np.array([0, 0, 1, 1], np.float32)
TO_CORNERS = np.array([[1, 0, 1, 0], [0, 1, 0, 1], [-0.5, 0, 0.5, 0], [0, -0.5, 0, 0.5]], np.float32)


class Raw(NamedTuple):
    """What :func:`raw_outputs` gives."""

    logits: NDArray[Any]
    """(B, Q, C)."""
    boxes: NDArray[Any]
    """(B, Q, 4), cx, cy, w, h, normalised."""


def raw_outputs(images: NDArray[Any]) -> Raw:
    """What the graph makes of RGB images (B, H, W, 3): colours of cells of 16 x 16 px, and two matrices."""
    batch, height, width = images.shape[:3]
    cells = (images.astype(np.float64) / 255).reshape(batch, height // CELL, CELL, width // CELL, CELL, 3).mean((2, 4))
    tokens = cells.reshape(batch, -1, 3)
    return Raw(tokens @ CLASS_WEIGHT + CLASS_BIAS, 1 / (1 + np.exp(-(tokens @ BOX_WEIGHT + BOX_BIAS))))


def metadata(**changes: object) -> dict[str, str]:
    """The metadata of such a file; a value of None takes its key away, one that is no string is written as JSON."""
    values: dict[str, Any] = {
        'iouquery.format': '1',
        'names': {str(label): name for label, name in enumerate(NAMES)},
        'task': 'detect',
        'imgsz': [SIDE, SIDE],
        'default_imgsz': [SIDE, SIDE],
        'input': 'float32-nchw',
        'output': 'detections',
        'mean': [0, 0, 0],
        'std': [255, 255, 255],
        'channel_order': 'RGB',
        'resize': {'mode': 'stretch', 'interpolation': 'bilinear', 'antialias': True},
        'num_queries': '16',
        'max_per_img': str(MAX_PER_IMG),
        'test_cfg': {'score_thr': None, 'overlap_thr': None, 'calibration': None},
        **changes,
    }
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}
    return {key: text for key, text in texts.items() if values[key] is not None}


def write_model(
    path: Path, *, batch: int | str = 'batch', size: int | None = SIDE, format_changes: dict[str, object] | None = None
) -> Path:
    """Write such a file.

    Args:
        path: of the file.
        batch: images that the graph takes; a name: any number.
        size: side of the images that it takes; None: any size.
        format_changes: see :func:`metadata`; ``input`` and ``output`` change the graph as well.
    """
    values = metadata(**{'imgsz': None if size is None else [size, size], **(format_changes or {})})
    if size is None:
        values['imgsz'] = 'null'
    raw, nhwc = values.get('output') == 'raw', values.get('input') == 'uint8-nhwc'
    sides = (size, size) if size else ('height', 'width')
    shape = [batch, *sides, 3] if nhwc else [batch, 3, *sides]
    inputs = [helper.make_tensor_value_info('images', TensorProto.UINT8 if nhwc else TensorProto.FLOAT, shape)]
    nodes, queries = _raw_nodes(nhwc, raw), 'queries' if size is None else (size // CELL) ** 2
    if raw:
        outputs = [
            helper.make_tensor_value_info('logits', TensorProto.FLOAT, [batch, queries, 3]),
            helper.make_tensor_value_info('boxes', TensorProto.FLOAT, [batch, queries, 4]),
        ]
    else:
        inputs.append(helper.make_tensor_value_info('sizes', TensorProto.FLOAT, [batch, 2]))
        nodes += _detection_nodes()
        outputs = [
            helper.make_tensor_value_info('boxes', TensorProto.FLOAT, [batch, MAX_PER_IMG, 4]),
            helper.make_tensor_value_info('scores', TensorProto.FLOAT, [batch, MAX_PER_IMG]),
            helper.make_tensor_value_info('labels', TensorProto.INT64, [batch, MAX_PER_IMG]),
        ]
    graph = helper.make_graph(nodes, 'detector', inputs, outputs, _constants())
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8)
    helper.set_model_props(model, values)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path


def write_openvino(source: Path, path: Path) -> Path:
    """The same as ``.xml`` and ``.bin``, metadata in ``rt_info``."""
    import openvino

    model = openvino_core().read_model(source)
    for entry in onnx.load(source).metadata_props:
        model.set_rt_info(entry.value, ['iouquery', entry.key])
    openvino.save_model(model, path, compress_to_fp16=False)
    return path


def _constants() -> list[onnx.TensorProto]:
    arrays = {
        'scale': np.float32(1 / 255),
        'class_weight': CLASS_WEIGHT,
        'class_bias': CLASS_BIAS,
        'box_weight': BOX_WEIGHT,
        'box_bias': BOX_BIAS,
        'to_corners': TO_CORNERS,
        'token_shape': np.array([0, 3, -1]),
        'flat_shape': np.array([0, -1]),
        'most': np.array([MAX_PER_IMG]),
        'classes': np.int64(3),
        'last': np.array([2]),
        'second': np.array([1]),
        'zero': np.float32(0),
    }
    return [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()]


def _raw_nodes(nhwc: bool, raw: bool) -> list[onnx.NodeProto]:
    node = helper.make_node
    first = [
        node('Cast', ['images'], ['cast'], to=TensorProto.FLOAT),
        node('Transpose', ['cast'], ['pixels'], perm=[0, 3, 1, 2]),
    ]
    return [
        *(first if nhwc else [node('Identity', ['images'], ['pixels'])]),
        node('AveragePool', ['pixels'], ['cells'], kernel_shape=[CELL, CELL], strides=[CELL, CELL]),
        node('Mul', ['cells', 'scale'], ['scaled']),
        node('Reshape', ['scaled', 'token_shape'], ['channels']),
        node('Transpose', ['channels'], ['tokens'], perm=[0, 2, 1]),
        node('MatMul', ['tokens', 'class_weight'], ['class_products']),
        node('Add', ['class_products', 'class_bias'], ['logits']),
        node('MatMul', ['tokens', 'box_weight'], ['box_products']),
        node('Add', ['box_products', 'box_bias'], ['box_logits']),
        node('Sigmoid', ['box_logits'], ['boxes' if raw else 'query_boxes']),
    ]


def _detection_nodes() -> list[onnx.NodeProto]:
    node = helper.make_node
    return [
        node('Reshape', ['logits', 'flat_shape'], ['flat_logits']),
        node('Sigmoid', ['flat_logits'], ['all_scores']),
        node('TopK', ['all_scores', 'most'], ['scores', 'best']),
        node('Div', ['best', 'classes'], ['query']),
        node('Mul', ['query', 'classes'], ['first_of_query']),
        node('Sub', ['best', 'first_of_query'], ['labels']),
        node('Unsqueeze', ['query', 'last'], ['query_column']),
        node('Concat', ['query_column'] * 4, ['query_index'], axis=2),
        node('GatherElements', ['query_boxes', 'query_index'], ['best_boxes'], axis=1),
        node('MatMul', ['best_boxes', 'to_corners'], ['corners']),
        node('Concat', ['sizes', 'sizes'], ['both_sizes'], axis=1),
        node('Unsqueeze', ['both_sizes', 'second'], ['limit']),
        node('Mul', ['corners', 'limit'], ['corners_px']),
        node('Max', ['corners_px', 'zero'], ['from_zero']),
        node('Min', ['from_zero', 'limit'], ['boxes']),
    ]
