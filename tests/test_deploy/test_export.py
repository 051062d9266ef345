"""One ONNX file: complete, checked, and the same as the model for any number of images."""

from __future__ import annotations

import errno
import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from exports import DETECTORS, SIZE, detector, distance, metadata, operators, predicted, run
from helpers import FAMILY, small_detector
from hosts import host_config
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from onnx import helper, numpy_helper
from torch import Tensor, nn

from iouquery_runtime import Detector
from iouquery_runtime import InputError as RuntimeInputError
from mmdet_iouquery.deploy import ExportReport, ExportSettings, ModelSource, export, export_onnx, graph, prepare
from mmdet_iouquery.deploy.graph import example
from mmdet_iouquery.deploy.onnx_file import check_standard, hold_in_range
from mmdet_iouquery.deploy.verify import TOLERANCES
from mmdet_iouquery.errors import InputError, ParityError
from mmdet_iouquery.models.query_selectors import ClassScoreQuerySelector
from mmdet_iouquery.structures import Memory

CLASSES = ('one', 'two', 'three', 'vier', 'fünf')
PREFIXES = (
    '/normalise/',
    '/detector/backbone/',
    '/detector/neck/',
    '/detector/bbox_head/',
    '/postprocess/',
)

SHORT = {'bbox_head__decoder__num_layers': 1, 'neck__num_fusion_blocks': 1}
"""For dynamo, which takes its time."""
OF_THE_FAMILY = frozenset(
    """
    Abs Add AveragePool Cast Clip Concat ConstantOfShape Conv Cos Div Equal Erf Expand Flatten Floor Gather
    GatherElements Greater GridSample LayerNormalization Log MatMul Max MaxPool Min Mul PRelu Pad Range ReduceMax
    ReduceMean ReduceSum Relu Reshape Resize Shape Sigmoid Sin Slice Softmax Split Sqrt Squeeze Sub TopK Transpose
    Unsqueeze Where
    """.split()  # noqa: SIM905
)
"""All operators of files of a fixed size. One that is new here has to be one that runtimes have, TensorRT above all."""


def write(model: nn.Module, path: Path, source: ModelSource | None = None, **settings: Any) -> ExportReport:
    return export_onnx(model, path, ExportSettings(**{'size': SIZE, **settings}), source, force=True)


@pytest.fixture(scope='module')
def model() -> nn.Module:
    torch.manual_seed(0)
    return detector(bbox_head__query_selector__anchor_eps=0.07)  # some anchors at the edge are none


@pytest.fixture(scope='module')
def report(model: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> ExportReport:
    source = ModelSource(CLASSES, (640, 480), {'mode': 'stretch'}, 'some_config.py', 'abc')
    return write(model, tmp_path_factory.mktemp('export') / 'model.onnx', source)


@pytest.fixture(scope='module')
def path(report: ExportReport) -> Path:
    return report.path


def shape_of(value: onnx.ValueInfoProto) -> list[int | str]:
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


def test_inputs_and_outputs_are_those_of_the_format(path: Path) -> None:
    graph = onnx.load(str(path)).graph
    assert {value.name: shape_of(value) for value in graph.input} == {
        'images': ['batch', 3, *SIZE],
        'sizes': ['batch', 2],
    }
    assert {value.name: shape_of(value) for value in graph.output} == {
        'boxes': ['batch', 150, 4],
        'scores': ['batch', 150],
        'labels': ['batch', 150],
    }
    types = [value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)]
    assert types == [onnx.TensorProto.FLOAT] * 4 + [onnx.TensorProto.INT64]


@pytest.mark.parametrize('batch', [1, 2, 5])
def test_detections_are_those_of_mmdets_pipeline(model: nn.Module, path: Path, batch: int) -> None:
    images, _ = example(batch, SIZE, 'float32-nchw', raw=False, seed=7)
    sizes = torch.tensor([[120.0, 50.0], [96.0, 64.0], [33.0, 1000.0], [1.0, 1.0], [640.0, 480.0]])[:batch]
    assert distance(run(path, images, sizes), predicted(model, images, sizes), sizes) < 1e-5


def test_the_file_tells_all_that_a_runtime_needs(report: ExportReport) -> None:
    entries = metadata(report.path)
    assert entries == report.metadata
    parsed = {
        key: json.loads(entries[key])
        for key in ('names', 'imgsz', 'default_imgsz', 'mean', 'std', 'resize', 'test_cfg')
    }
    assert parsed == {
        'names': dict(zip('01234', CLASSES)),
        'imgsz': [*SIZE],
        'default_imgsz': [640, 480],
        'mean': [0.0] * 3,
        'std': [255.0] * 3,
        'resize': {'mode': 'stretch'},
        'test_cfg': {'score_thr': None, 'overlap_thr': None, 'calibration': None},
    }
    words = ('iouquery.format', 'task', 'input', 'output', 'channel_order', 'num_queries', 'max_per_img', 'opset')
    assert [entries[key] for key in words] == ['1', 'detect', 'float32-nchw', 'detections', 'RGB', '30', '300', '17']
    words = ('config', 'checkpoint_sha256', 'attention', 'precision', 'float32_layers')
    assert [entries[key] for key in words] == ['some_config.py', 'abc', 'grid_sample', 'float32', '[]']
    assert entries['torch_version'] == torch.__version__


def test_settings_of_the_head_are_for_the_runtime(tmp_path: Path) -> None:
    calibration = {'scores': [0.0, 0.5, 1.0], 'precision': [0.1, 0.2, 0.9]}
    model = detector(
        test_cfg__score_thr=[0.1, 0.2, 0.3, 0.4, 0.5], test_cfg__overlap_thr=0.7, test_cfg__calibration=calibration
    )
    model.dataset_meta = {'classes': CLASSES}
    entries = write(model, tmp_path / 'model.onnx', verify=False).metadata
    assert json.loads(entries['test_cfg']) == {
        'score_thr': [0.1, 0.2, 0.3, 0.4, 0.5],
        'overlap_thr': 0.7,
        'calibration': calibration,
    }
    assert [*json.loads(entries['names']).values()] == [*CLASSES]


def test_names_of_another_number_of_classes_are_refused(model: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(InputError, match='the model has 5 classes, and 2 names are given: cat, dog'):
        write(model, tmp_path / 'model.onnx', ModelSource(names=('cat', 'dog')))
    assert not [*tmp_path.iterdir()]


def test_nodes_are_named_by_part(path: Path) -> None:
    nodes = onnx.load(str(path)).graph.node
    assert all(node.name.startswith(PREFIXES) for node in nodes)
    for part in ('input_proj', 'query_selector/', 'decoder/'):
        assert any(node.name.startswith(f'/detector/bbox_head/{part}') for node in nodes)
    assert len({node.name for node in nodes}) == len(nodes)
    # nothing tells of the machine that wrote it
    assert not any(node.doc_string or node.metadata_props for node in nodes)


def test_no_weight_stands_there_twice(path: Path) -> None:
    tensors = onnx.load(str(path)).graph.initializer
    large = [(*tensor.dims, tensor.raw_data) for tensor in tensors if len(tensor.raw_data) > 2000]
    assert len(large) > 50 and len({*large}) == len(large)


def test_no_shape_is_computed_and_norms_are_whole(path: Path) -> None:
    """AIFI has two norms, the selector one, used twice, and each of three decoder layers three."""
    counts = operators(path)
    assert counts['LayerNormalization'] == 2 + 2 + 3 * 3
    computed = {'Shape', 'Range', 'ConstantOfShape', 'Sin', 'Cos', 'Where', 'Equal', 'Pow', 'Mod'}
    assert not computed & {*counts}
    # three levels in three layers
    assert counts['GridSample'] == 9


def test_values_of_attention_are_read_as_they_are_projected(path: Path) -> None:
    """Between the convolution of a map and what samples it, nothing is copied but by a new shape."""
    nodes = onnx.load(str(path)).graph.node
    makers = {name: node for node in nodes for name in node.output}
    for node in nodes:
        if node.op_type == 'GridSample':
            reshape = makers[node.input[0]]
            assert (reshape.op_type, makers[reshape.input[0]].op_type) == ('Reshape', 'Conv')


def numbers(proto: onnx.ModelProto) -> np.ndarray:
    arrays = [numpy_helper.to_array(tensor) for tensor in proto.graph.initializer]
    return np.concatenate([x.ravel() for x in arrays if x.dtype.kind == 'f'])


def test_numbers_are_within_half_precision(path: Path) -> None:
    proto = onnx.load(str(path))
    assert np.abs(numbers(proto)).max() == 1e4  # of anchors that are none
    proto.graph.initializer.append(numpy_helper.from_array(np.array([1.0, -np.inf], dtype=np.float32), 'infinite'))
    hold_in_range(proto)
    assert numpy_helper.to_array(proto.graph.initializer[-1]).tolist() == [1.0, -65504.0]
    for far in (-7e4, np.nan):
        proto.graph.initializer[-1].CopyFrom(numpy_helper.from_array(np.array([far], dtype=np.float32), 'far'))
        with pytest.raises(
            InputError, match=rf'^far has the number {far:g}, and half precision knows none beyond \+-65504'
        ):
            hold_in_range(proto)


def test_operators_of_others_are_refused(path: Path) -> None:
    proto = onnx.load(str(path))
    check_standard(proto, 17)
    with pytest.raises(InputError, match='the exporter wrote opset 17, not 18'):
        check_standard(proto, 18)
    proto.graph.node.append(helper.make_node('NonZero', ['boxes'], ['x']))
    proto.graph.node.append(helper.make_node('Gelu', ['boxes'], ['y'], domain='com.microsoft'))
    with pytest.raises(InputError, match=r'the exporter wrote NonZero, com\.microsoft\.Gelu, which'):
        check_standard(proto, 17)


def by_points(name: str) -> bool:
    """Whether it reads maps between their pixels."""
    return name not in ('dense DAB decoder', 'RT-DETRv2, discrete sampling')


@pytest.mark.parametrize('name', DETECTORS)
def test_every_kind_of_detector_is_what_the_model_is(name: str, tmp_path: Path) -> None:
    attention = (
        'gather' if name in ('D-FINE', 'RT-DETRv2, points per level', 'deformable DAB decoder') else 'grid_sample'
    )
    report = write(detector(name), tmp_path / 'model.onnx', attention=attention)
    assert [(parity.batch, parity.size) for parity in report.parity] == [(1, SIZE), (2, SIZE), (3, SIZE)]
    for parity in report.parity:
        assert max(parity.logits, parity.boxes, parity.detections or 0.0, parity.token_scores or 0.0) < 1e-5
        assert (parity.token_scores is None) == (name in ('learned anchors', 'learned embeddings'))
    counts = operators(report.path)
    assert not {'Sin', 'Cos'} & {*counts} or name not in ('DEIMv2-X', 'ECDet-S')  # a rotary code is a constant
    assert {*counts} <= OF_THE_FAMILY and bool(counts['GridSample']) == (attention == 'grid_sample' and by_points(name))


@pytest.mark.parametrize(
    ('exporter', 'name'),
    [
        ('torchscript', 'RT-DETR'),
        ('dynamo', 'RT-DETR'),
        ('torchscript', 'DEIMv2-X'),
        ('dynamo', 'ECDet-S'),
        ('torchscript', 'DEIMv2-N'),
        ('torchscript', 'distilled'),
    ],
)
def test_any_size(exporter: str, name: str, tmp_path: Path) -> None:
    """Of maps, tables of anchors and positions, and what is read from them, nothing is of one size."""
    model = detector(name, **SHORT, test_cfg__num_queries=20)
    report = write(model, tmp_path / 'model.onnx', exporter=exporter, dynamic_size=True, attention='gather')
    # the least that has as many tokens as queries: of 32 x 32, on three maps, the coarsest has one pixel
    least = (64, 64) if name == 'DEIMv2-N' else (32, 32)
    assert {parity.size for parity in report.parity} == {SIZE, (64, 160), (96, 96), least}
    entries = metadata(report.path)
    assert json.loads(entries['imgsz']) is None and json.loads(entries['default_imgsz']) == [*SIZE]
    assert entries['opset'] == {'torchscript': '17', 'dynamo': '18'}[exporter]
    images, _ = example(2, (128, 192), 'float32-nchw', raw=False)
    sizes = torch.tensor([[120.0, 50.0], [96.0, 64.0]])
    assert distance(run(report.path, images, sizes), predicted(model, images, sizes), sizes) < 1e-5
    assert all(node.name.startswith('/') for node in onnx.load(str(report.path)).graph.node)


@pytest.mark.parametrize(
    ('changes', 'num_queries', 'strides', 'min_tokens'),
    [
        ({}, 22, [8, 16, 32], 22),
        ({'bbox_head__query_selector__rank': 'token_class'}, 106, [8, 16, 32], 22),  # pairs of 5 classes
        ({'neck__num_outs': 4, 'bbox_head__in_channels': [32] * 4}, 23, [8, 16, 32, 64], 23),
    ],
)
def test_a_file_of_any_size_tells_which_images_are_too_small(
    changes: dict[str, Any], num_queries: int, strides: list[int], min_tokens: int, tmp_path: Path
) -> None:
    """One of 32 x 32 has 16 + 4 + 1 tokens, or one more of a fourth map."""
    model = detector(**SHORT, **changes, test_cfg__num_queries=num_queries)
    source = ModelSource(default_size=(32, 32))
    report = write(model, tmp_path / 'model.onnx', source, dynamic_size=True)
    entries = {key: json.loads(value) for key, value in report.metadata.items() if key in ('strides', 'min_tokens')}
    assert entries == {'strides': strides, 'min_tokens': min_tokens}
    assert json.loads(report.metadata['default_imgsz']) == [*SIZE]
    assert min(parity.size for parity in report.parity) == (64, 64)
    refused = rf'model.onnx chooses its queries from {min_tokens} tokens .* 32x32 .* has {min_tokens - 1}; name'
    with pytest.raises(RuntimeInputError, match=refused):
        Detector(report.path, image_size=(32, 32))
    result = Detector(report.path, image_size=(32, 64))(np.zeros((9, 9, 3), np.uint8), score_thr=0)
    assert len(result) == min(300, 5 * num_queries)


def test_a_size_without_a_token_for_each_query_is_none_for_a_file_of_any(tmp_path: Path) -> None:
    """Exporters write the number of queries of the size they see, or of each size all tokens."""
    model = detector(**SHORT, test_cfg__num_queries=85)
    with pytest.raises(
        InputError, match=r'64x64 .* has 84 tokens, too few to choose 85 queries from, .*a larger size: .* --size 96 96'
    ):
        write(model, tmp_path / 'model.onnx', size=(64, 64), dynamic_size=True)
    assert not [*tmp_path.iterdir()]
    learned = write(detector('learned anchors'), tmp_path / 'model.onnx', size=(32, 32), dynamic_size=True)
    assert learned.metadata['strides'] == '[]' and Detector(learned.path).image_size == (32, 32)


def test_dynamo_names_nodes_by_part(tmp_path: Path) -> None:
    """In float16, of two layers that read the memory itself."""
    settings = dict(exporter='dynamo', raw=True, opset=20, precision='float16')
    report = write(small_detector(**FAMILY['ECDet-S']).eval(), tmp_path / 'model.onnx', **settings)
    nodes = onnx.load(str(report.path)).graph.node
    computing = [node for node in nodes if node.op_type not in ('Shape', 'Cast')]  # of the images, and of the logits
    assert all(node.name.startswith(PREFIXES) for node in computing)
    assert not any(node.doc_string or node.metadata_props for node in nodes)
    assert all(1e-6 < parity.logits < TOLERANCES['float16'].logits / 2 for parity in report.parity)


def test_raw_predictions_of_bytes_for_two_images(model: nn.Module, tmp_path: Path) -> None:
    report = write(model, tmp_path / 'model.onnx', raw=True, batch=2, input='uint8-nhwc', opset=19)
    graph = onnx.load(str(report.path)).graph
    assert {value.name: shape_of(value) for value in graph.input} == {'images': [2, *SIZE, 3]}
    assert graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert {value.name: shape_of(value) for value in graph.output} == {'logits': [2, 30, 5], 'boxes': [2, 30, 4]}
    entries = metadata(report.path)
    assert (entries['input'], entries['output'], entries['opset']) == ('uint8-nhwc', 'raw', '19')
    assert [(parity.batch, parity.detections) for parity in report.parity] == [(2, None)]


def test_fewer_layers_are_fewer_nodes_and_weights(report: ExportReport, tmp_path: Path) -> None:
    less = write(detector(test_cfg__num_decoder_layers=2), tmp_path / 'model.onnx')
    nodes = [node.name for node in onnx.load(str(less.path)).graph.node]
    assert less.num_nodes < 0.85 * report.num_nodes and less.num_bytes < report.num_bytes
    assert not any('/decoder/layers.2/' in name or '/bbox_heads.2/' in name for name in nodes)


@pytest.mark.parametrize(('asked', 'given'), [(50, 50), (500, 84)])
def test_numbers_of_queries(asked: int, given: int, tmp_path: Path) -> None:
    """An image of 64 x 64 has 84 tokens."""
    report = write(detector(test_cfg__num_queries=asked), tmp_path / 'model.onnx', size=(64, 64), raw=True)
    assert shape_of(onnx.load(str(report.path)).graph.output[0]) == ['batch', given, 5]
    assert report.metadata['num_queries'] == str(given)


@pytest.mark.parametrize('name', ['DINO', 'ConditionalDETR', 'DeformableDETR', 'DABDETR', 'DETR'])
def test_adapters(name: str, tmp_path: Path) -> None:
    cfg = host_config(name, type=f'IoUQuery{name}', sigmoid=True)
    if name == 'DABDETR':  # mmdet's own decoder is refused
        cfg.decoder = ConfigDict(type='DABDecoder', num_layers=1)
    model = MODELS.build(cfg).eval()
    model.init_weights()
    # of a map of one pixel, as DINO's coarsest is at 64 x 96, torch writes mmdet's reference points as no numbers
    report = write(model, tmp_path / 'model.onnx', size=(128, 128))
    assert len(report.parity) == 3 and max(parity.logits for parity in report.parity) < 1e-4
    assert report.metadata['max_per_img'] == report.metadata['num_queries'] == '20'
    assert np.abs(numbers(onnx.load(str(report.path)))).max() <= 65504  # mmdet masks proposals by infinity
    with pytest.raises(InputError, match=f'IoUQuery{name} can be exported for one size only'):
        write(model, tmp_path / 'model.onnx', dynamic_size=True)


# ---- what goes wrong -------------------------------------------------------------------------------------------------


def spoiled(monkeypatch: pytest.MonkeyPatch, change: Any) -> None:
    """Have the exporter write something else."""
    write = export._written

    def written(*args: Any) -> onnx.ModelProto:
        proto = write(*args)
        change(proto)
        return proto

    monkeypatch.setattr(export, '_written', written)


def change_classes(proto: onnx.ModelProto) -> None:
    add = next(node for node in proto.graph.node if node.name.endswith('/decoder/cls_heads.2/Add'))
    position = [*proto.graph.node].index(add) + 1
    proto.graph.initializer.append(numpy_helper.from_array(np.array(2e-3, dtype=np.float32), 'little'))
    proto.graph.node.insert(position, helper.make_node('Add', ['right', 'little'], [add.output[0]], name='/detector/a'))
    add.output[0] = 'right'


def keep_one_batch(proto: onnx.ModelProto) -> None:
    """As an exporter does that has taken the number of images for a constant."""
    node = next(node for node in proto.graph.node if node.op_type == 'Softmax')
    proto.graph.initializer.append(numpy_helper.from_array(np.array([2, -1]), 'fixed'))
    proto.graph.initializer.append(numpy_helper.from_array(np.array([2, 2, 6, 6]), 'back'))
    position = [*proto.graph.node].index(node)
    proto.graph.node.insert(
        position + 1, helper.make_node('Reshape', ['folded', 'back'], [node.output[0]], name='/detector/b')
    )
    proto.graph.node.insert(
        position + 1, helper.make_node('Reshape', ['made', 'fixed'], ['folded'], name='/detector/a')
    )
    node.output[0] = 'made'


def forget_a_weight(proto: onnx.ModelProto) -> None:
    del proto.graph.initializer[0]


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (
            forget_a_weight,
            r'does not open what the exporter wrote: .* is not a graph input, .*try the other --exp',
        ),
        (
            change_classes,
            r'does not compute what the model computes: 1 x 64x96: .*logits 2\.0e-03.*0\.0% of the queries agree',
        ),
        (keep_one_batch, r'does not run on images \[3, 3, 64, 96\]'),
    ],
)
def test_a_file_that_is_something_else_is_not_left(
    change: Any, message: str, model: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / 'model.onnx'
    path.write_bytes(b'of yesterday')
    spoiled(monkeypatch, change)
    with pytest.raises(ParityError, match=message) as raised:
        write(model, path)
    assert raised.value.status == 6
    assert [*tmp_path.iterdir()] == [path] and path.read_bytes() == b'of yesterday'


def test_what_merging_norms_does_wrong_is_seen(
    model: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is held against the detector as it was."""

    def merged(given: nn.Module) -> nn.Module:
        wrong = prepare.merged(given)
        wrong.bbox_head.input_proj[0].conv.bias.data += 1e-2
        return wrong

    monkeypatch.setattr(graph, 'merged', merged)
    with pytest.raises(ParityError, match='does not compute what the model computes'):
        write(model, tmp_path / 'model.onnx')


@MODELS.register_module()
class TwoChoices(ClassScoreQuerySelector):
    """Chooses 60 tokens by their scores, and of them by scores that are all the same."""

    def _choose(self, memory: Memory, valid: Tensor, num_queries: int | None) -> Tensor:
        scores = self._classify(self._project(memory.tokens, valid)).amax(-1)
        first = scores.topk(60, dim=1).indices
        equal = scores.gather(1, first).clamp(min=0)
        return first.gather(1, equal.topk(num_queries or self.num_queries, dim=1).indices)


def test_a_selector_that_chooses_twice_among_equals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runtimes choose others of them than torch does, which is no fault; what is wrong behind the choice is seen."""
    torch.manual_seed(0)
    twice = detector(bbox_head__query_selector__type='TwoChoices')
    parities = write(twice, tmp_path / 'model.onnx').parity
    assert {parity.share for parity in parities} == {1.0} and sum(parity.exchanged for parity in parities) > 0
    spoiled(monkeypatch, change_classes)
    with pytest.raises(ParityError, match=r'0\.0% of the queries agree'):
        write(twice, tmp_path / 'model.onnx')


def test_a_full_disk_leaves_nothing(model: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(
        InputError, match=r'^cannot write .*model\.onnx: No space left on device; name another file, or make room$'
    ):
        write(model, tmp_path / 'model.onnx', verify=False)
    assert not [*tmp_path.iterdir()]


def test_a_missing_package_is_named_before_work_starts(
    model: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None if name.startswith('onnxs') else find(name))
    with pytest.raises(
        InputError, match=r'needs onnxslim: python -m pip install onnxslim, .* mmdet-iouquery\[export\]'
    ):
        write(model, tmp_path / 'model.onnx')
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None if name == 'onnxscript' else find(name))
    with pytest.raises(InputError, match=r'needs onnxscript: .* mmdet-iouquery\[export-dynamo\]'):
        write(model, tmp_path / 'model.onnx', exporter='dynamo')


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'size': (100, 64)}, r'multiples of 32, the coarsest stride, got \[100, 64\]; nearest is \[96, 64\]'),
        ({'size': (64,)}, r'size must be a height and a width'),
        ({'size': 640}, r'size must be a list of whole numbers'),
        ({'opset': 16}, r'opset 16 has no LayerNormalization, .* name an opset from 17 to 20'),
        ({'opset': 21}, r'opset must be one of \[17, 18, 19, 20\], got 21'),
        ({'opset': 17, 'exporter': 'dynamo'}, r'dynamo writes opset 18 and above'),
        ({'attention': 'triton'}, r"attention must be one of \['grid_sample', 'gather'\]"),
        ({'input': 'nhwc'}, r'input must be one of'),
        ({'exporter': 'onnx'}, r'exporter must be one of'),
        ({'batch': 0}, r'batch must be at least 1'),
        ({'raw': 1}, r'raw must be True or False'),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ExportSettings(**settings)


def test_names_of_files_that_cannot_be_are_refused(model: nn.Module, tmp_path: Path) -> None:
    there = tmp_path / 'there.onnx'
    there.touch()
    for path, message in (
        (there, 'exists already; choose another name, or --force'),
        (tmp_path / 'model.pth', r'must end in \.onnx'),
        (tmp_path, r'is a folder; name the file to write, e\.g\. .*model\.onnx'),
    ):
        with pytest.raises(InputError, match=message):
            export_onnx(model, path)
    assert [*tmp_path.iterdir()] == [there]
