"""float16 files: what is in which type, how far from the model; and OpenVINO's files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from helpers import FAMILY, NARROW, build_detector, small_detector
from onnx import TensorProto, numpy_helper

from iouquery_runtime import Detector
from mmdet_iouquery.deploy import ExportReport, ExportSettings, export_onnx
from mmdet_iouquery.deploy.openvino_file import convert_to_openvino
from mmdet_iouquery.deploy.verify import TOLERANCES
from mmdet_iouquery.errors import InputError

HALF = ExportSettings(size=(64, 96), precision='float16')
IMAGE = np.random.default_rng(0).integers(0, 256, (72, 100, 3), dtype=np.uint8)


@pytest.fixture(scope='module', params=['RT-DETR', 'DEIMv2-N', 'DEIMv2-X', 'ECDet-S'])
def reports(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[ExportReport, ExportReport]:
    """Of the same detector in float16 and in float32."""
    torch.manual_seed(0)
    model, folder = small_detector(**FAMILY[request.param]), tmp_path_factory.mktemp('files')
    whole = ExportSettings(size=HALF.size, verify=False)
    return export_onnx(model, folder / 'half.onnx', HALF), export_onnx(model, folder / 'whole.onnx', whole)


def test_weights_are_in_float16_and_what_is_finer_is_not(reports: tuple[ExportReport, ExportReport]) -> None:
    half, whole = reports
    graph = onnx.shape_inference.infer_shapes(onnx.load(str(half.path))).graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    kinds = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.output)}
    for node in graph.node:
        if node.op_type == 'Conv':
            assert weights[node.input[1]].data_type == TensorProto.FLOAT16, node.name
        if node.op_type == 'LayerNormalization':  # its sums are in float32 wherever its numbers are not
            assert all(
                attribute.i == TensorProto.FLOAT for attribute in node.attribute if attribute.name == 'stash_type'
            )
        if node.op_type == 'GridSample' or '/postprocess/' in node.name:
            assert TensorProto.FLOAT16 not in [kinds.get(name) for name in node.output], node.name
    large = [numpy_helper.to_array(tensor) for tensor in weights.values() if len(tensor.dims) > 1]
    shares = {kind: sum(x.size for x in large if x.dtype == kind) for kind in (np.float16, np.float32)}
    assert shares[np.float16] > 20 * shares[np.float32]
    assert half.num_bytes < 0.85 * whole.num_bytes  # of so narrow a detector the nodes weigh as well, ECDet-S's most
    assert [value.type.tensor_type.elem_type for value in graph.output[:2]] == [TensorProto.FLOAT] * 2
    assert {value.type.tensor_type.elem_type for value in graph.input} == {TensorProto.FLOAT}


def test_it_says_so_and_is_as_near_as_float16_allows(reports: tuple[ExportReport, ExportReport]) -> None:
    half, whole = reports
    assert half.metadata['precision'] == 'float16' and whole.metadata['precision'] == 'float32'
    parts = json.loads(half.metadata['float32_layers'])
    assert '/postprocess' in parts and '/normalise' in parts and '/detector/bbox_head/decoder' in parts
    assert not any('backbone' in part for part in parts) and json.loads(whole.metadata['float32_layers']) == []
    assert [parity.batch for parity in half.parity] == [1, 2, 3]
    for parity in half.parity:
        assert parity.holds and parity.tolerance == TOLERANCES['float16']
        assert 1e-6 < parity.logits < TOLERANCES['float16'].logits  # it is float16 that was compared
    actual, expected = (Detector(report.path)(IMAGE) for report in reports)
    assert np.abs(np.sort(actual.scores) - np.sort(expected.scores)).max() < 1e-2


def test_openvino_files_say_what_the_onnx_file_says(reports: tuple[ExportReport, ExportReport], tmp_path: Path) -> None:
    pytest.importorskip('openvino')
    for report in reports:
        path = tmp_path / f'{report.path.stem}.xml'
        convert_to_openvino(report.path, path, report.metadata)
        assert sorted(file.name for file in tmp_path.iterdir() if file.stem == path.stem) == [
            f'{path.stem}.bin',
            f'{path.stem}.xml',
        ]
        detector = Detector(path)
        assert dict(detector.metadata.values) == report.metadata
        actual, expected = detector(IMAGE), Detector(report.path)(IMAGE)
        tolerance = 1e-4 if report.metadata['precision'] == 'float32' else 2e-2
        assert np.abs(np.sort(actual.scores) - np.sort(expected.scores)).max() < tolerance


def test_a_fixed_number_of_images(tmp_path: Path) -> None:
    report = export_onnx(small_detector(**NARROW), tmp_path / 'two.onnx', ExportSettings(size=HALF.size, batch=2))
    assert [parity.batch for parity in report.parity] == [2] and report.parity[0].holds
    detector = Detector(report.path)
    assert detector.batch_size == 2 and len(detector([IMAGE] * 3, batch_size=2)) == 3


def test_adapters_are_exported_in_float32_alone(tmp_path: Path) -> None:
    model = build_detector('dab_detr/dab-detr_r50_dab-decoder_8xb2-50e_coco.py')
    with pytest.raises(InputError, match='IoUQueryDABDETR can be exported in float32 only'):
        export_onnx(model, tmp_path / 'a.onnx', HALF)
    assert not [*tmp_path.iterdir()]
