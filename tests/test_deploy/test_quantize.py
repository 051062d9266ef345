"""Eight-bit files: what stays in floating point, what AP they have, and when none is left."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import FAMILY, small_detector
from PIL import Image

from iouquery_runtime import Detector, Result
from iouquery_runtime import InputError as RuntimeInputError
from iouquery_runtime.backends import openvino_core
from mmdet_iouquery.apps.export.quantize_command import quantize_file
from mmdet_iouquery.deploy.accuracy import LabelledImages, average_precision, evaluate, progress
from mmdet_iouquery.deploy.model_files import is_written
from mmdet_iouquery.deploy.quantize import (
    FLOAT_IN_BACKBONES,
    FLOAT_PARTS,
    AccuracyLostError,
    QuantizationReport,
    quantize,
    write_quantized,
)
from mmdet_iouquery.errors import InputError

pytest.importorskip('onnxslim')

ORIGIN = {'config', 'checkpoint_sha256', 'config_options', 'package_version', 'settings', 'precision'}
NAMES = ('circle', 'square', 'star', 'cross', 'ring')
IDS = {'square': 7, 'circle': 3, 'star': 90, 'ring': 12, 'cross': 1}
"""Of categories in the annotation files: neither in the order of labels nor without gaps."""


def write_images(folder: Path, count: int) -> list[Path]:
    random = np.random.default_rng(0)
    folder.mkdir()
    paths = [folder / f'{i}.png' for i in range(count)]
    for path in paths:
        pixels = np.kron(random.integers(0, 256, (6, 8, 3)), np.ones((12, 12, 1))).astype(np.uint8)
        Image.fromarray(pixels).save(path)
    return paths


def write_labels(path: Path, images: list[Path], results: list[Result]) -> Path:
    """Annotations of which each detection is one."""
    records = [dict(id=10 + i, file_name=image.name, width=96, height=72) for i, image in enumerate(images)]
    boxes: list[dict[str, Any]] = []
    for record, result in zip(records, results):
        for (x1, y1, x2, y2), name in zip(result.boxes.tolist(), result.names):
            box = [x1, y1, x2 - x1, y2 - y1]
            boxes.append(
                dict(id=len(boxes) + 1, image_id=record['id'], category_id=IDS[name], bbox=box, area=box[2] * box[3])
            )
    categories = [dict(id=number, name=name) for name, number in IDS.items()]
    path.write_text(json.dumps(dict(images=records, annotations=boxes, categories=categories)))
    return path


@pytest.fixture(scope='module')
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A narrow detector, an RT-DETR unless a test names another, all of whose detections are kept."""
    from mmdet_iouquery.deploy import ExportSettings, ModelSource, export_onnx

    torch.manual_seed(0)
    changes = FAMILY[getattr(request, 'param', 'RT-DETR')]
    model = small_detector(bbox_head__query_selector__num_queries=6, test_cfg__max_per_img=8, **changes)
    path = tmp_path_factory.mktemp('exported') / 'model.onnx'
    export_onnx(model, path, ExportSettings(size=(64, 64), verify=False), ModelSource(names=NAMES))
    return path


@pytest.fixture(scope='module')
def labelled(exported: Path) -> LabelledImages:
    """An image whose objects are what the exported file detects in it."""
    images = write_images(exported.parent / 'images', 1)
    write_images(exported.parent / 'samples', 3)
    labels = write_labels(exported.parent / 'labels.json', images, Detector(exported)(images))
    return LabelledImages.read(labels, images[0].parent)


def test_ap_goes_by_the_names_of_classes(exported: Path, labelled: LabelledImages) -> None:
    assert average_precision(Detector(exported), labelled)['AP'] == pytest.approx(1)
    numbers = labelled.category_ids(NAMES)
    assert numbers == [3, 7, 90, 1, 12]
    truth = labelled.file.annotations
    (name,) = {entry['category_id'] for entry in truth[:1]}
    of_class = [entry for entry in truth if entry['category_id'] == name]
    rows = [dict(image_id=entry['image_id'], category_id=name, bbox=entry['bbox'], score=0.9) for entry in of_class[:1]]
    # precision 1 up to the recall that one object makes; read at the 101 recalls of COCO, mean over the classes present
    recalls = sum(recall <= 1 / len(of_class) + 1e-9 for recall in np.linspace(0, 1, 101)) / 101
    present = len({entry['category_id'] for entry in truth})
    assert evaluate(labelled, rows, numbers)['AP'] == pytest.approx(recalls / present)
    assert evaluate(labelled, [], numbers)['AP'] == 0


def test_a_log_gets_a_line_for_each_tenth(capsys: pytest.CaptureFixture[str]) -> None:
    assert [*progress([*range(1234)], 'AP before')] == [*range(1234)]
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f'AP before: {math.ceil(123.4 * tenth)} of 1234 images' for tenth in range(1, 11)]
    assert [*progress('abc', 'x')] == [*'abc'] and len(capsys.readouterr().err.splitlines()) == 3


def test_labels_that_do_not_fit_are_refused(exported: Path, labelled: LabelledImages, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r'finds hexagon, which .* does not have'):
        labelled.category_ids(['circle', 'hexagon'])
    with pytest.raises(InputError, match=r'1 of 1 images of .* are not in .*, the first is 0\.png'):
        LabelledImages.read(exported.parent / 'labels.json', tmp_path)


def kinds(path: Path) -> dict[str, str]:
    """Operators by name."""
    if path.suffix == '.xml':
        pytest.importorskip('openvino')
        return {op.get_friendly_name(): op.get_type_name() for op in openvino_core().read_model(str(path)).get_ops()}
    import onnx

    return {node.name: node.op_type for node in onnx.load(str(path)).graph.node}


@pytest.mark.parametrize(('exported', 'suffix'), [('RT-DETR', '.xml'), ('DEIMv2-Atto', '.onnx')], indirect=['exported'])
def test_backbone_and_neck_are_quantised_and_what_ranks_and_refines_is_not(
    exported: Path, labelled: LabelledImages, tmp_path: Path, suffix: str
) -> None:
    pytest.importorskip('nncf')
    path = tmp_path / f'model{suffix}'
    report = quantize(exported, path, labelled, num_samples=1, max_drop=1, threads=1)
    quantised = [name for name, kind in kinds(path).items() if kind in ('FakeQuantize', 'QuantizeLinear')]
    for part in ('backbone', 'neck'):
        assert any(f'/detector/{part}' in name for name in quantised), part
    assert not any(part in name for name in quantised for part in (*FLOAT_PARTS, 'boxes', 'scores', 'labels'))
    detector = Detector(path, threads=1)
    assert detector.names == NAMES and detector.metadata.values['precision'] == 'int8'
    assert json.loads(detector.metadata.values['float32_layers']) == [*FLOAT_PARTS]
    assert detector.metadata.values['checkpoint_sha256'] == Detector(exported).metadata.values['checkpoint_sha256']
    assert report.before['AP'] == pytest.approx(1)
    assert report.after == average_precision(detector, labelled)
    assert report.samples == 1 and report.bytes_before == exported.stat().st_size
    assert report.bytes_after == sum(file.stat().st_size for file in tmp_path.iterdir())
    assert [file.name for file in tmp_path.iterdir() if file.suffix != '.bin'] == [path.name]


@pytest.mark.parametrize(
    ('name', 'patch_embed', 'ffn', 'final_norms'),
    [
        ('DEIMv2-X', ['proj'], ['w12', 'w3'], 3),
        ('ECDet-S', ['proj', *(f'convs/convs.{i}/conv' for i in range(3))], ['layers.0', 'layers.1'], 0),
    ],
)
def test_norms_and_attention_of_a_vit_stay_in_floating_point(
    name: str, patch_embed: list[str], ffn: list[str], final_norms: int, tmp_path: Path
) -> None:
    """Of patch embedding and blocks the linear layers and convolutions are given eight bits, and no other operator."""
    pytest.importorskip('nncf')
    import onnx

    from mmdet_iouquery.deploy import ExportSettings, export_onnx

    source, path = tmp_path / 'model.onnx', tmp_path / 'int8.onnx'
    export_onnx(small_detector(**FAMILY[name]), source, ExportSettings(size=(64, 64), verify=False, batch=1))
    pixels = np.random.default_rng(0).uniform(0, 255, (1, 3, 64, 64)).astype(np.float32)
    write_quantized(source, path, [{'images': pixels, 'sizes': np.array([[64, 64]], np.float32)}], {})
    written = onnx.load(str(path))
    nodes = written.graph.node
    dequantised = {node.output[0] for node in nodes if node.op_type == 'DequantizeLinear'}
    eight_bits = [node for node in nodes if re.search('/vit/(patch|block)', node.name) and dequantised & {*node.input}]
    assert all(dequantised.issuperset(node.input[:2]) for node in eight_bits)  # of their weights as well
    layers = ['attn/qkv', 'attn/proj', *(f'ffn/{layer}' for layer in ffn)]
    expected = {f'patch_embed/{layer}' for layer in patch_embed}
    expected |= {f'blocks.{i}/{layer}' for i in range(3) for layer in layers}
    assert {node.name.split('/vit/')[1].rsplit('/', 1)[0] for node in eight_bits} == expected
    in_float = [node.op_type for node in nodes if re.fullmatch(FLOAT_IN_BACKBONES, node.name)]
    # each block has two norms; DEIMv2-X's has one more behind each of three blocks
    assert [in_float.count(kind) for kind in ('LayerNormalization', 'Softmax', 'MatMul')] == [
        3 * 2 + final_norms,
        3,
        3 * 2,
    ]
    layer_names = json.loads(next(entry.value for entry in written.metadata_props if entry.key == 'float32_layers'))
    assert layer_names[:3] == [*FLOAT_PARTS] and len(layer_names) == 3 + 3 * 2 + final_norms + 3
    assert all(f'/detector/backbone/vit/blocks.{i}/norm{n}' in layer_names for i in range(3) for n in (1, 2))
    assert sum(layer.endswith('/attn/dot_product') for layer in layer_names) == 3


def test_no_file_is_left_that_finds_too_little(exported: Path, labelled: LabelledImages, tmp_path: Path) -> None:
    """Ranges of a black image alone are far too narrow for any other."""
    pytest.importorskip('nncf')
    black = exported.parent / 'black.png'
    Image.new('RGB', (96, 72)).save(black)
    with pytest.raises(AccuracyLostError, match=r'AP fell from 1\.0000 to 0\.\d+, by more than 0\.01: no file') as lost:
        quantize(exported, tmp_path / 'model.xml', labelled, samples=[black], threads=1)
    assert lost.value.status == 1 and not [*tmp_path.iterdir()]


def test_a_model_that_finds_nothing_has_nothing_to_lose() -> None:
    report = QuantizationReport(Path('a.onnx'), 4, {'AP': 0.0}, {'AP': 0.0}, 10**6, 5 * 10**5)
    first, note = str(report).splitlines()
    assert first.startswith('a.onnx: AP 0.0000, 0.0000 before (+0.0000); 0.5 MB, 1.0 before; ranges of 4 images')
    assert note.startswith('note: a model that finds nothing has no AP to lose')
    assert '(-0.0100)' in str(dataclasses.replace(report, before={'AP': 0.5}, after={'AP': 0.49}))


def arguments(exported: Path, *more: object) -> list[str]:
    folder = exported.parent
    return [str(word) for word in (exported, '--data', folder / 'labels.json', '--images', folder / 'images', *more)]


def test_the_command_line(
    exported: Path, labelled: LabelledImages, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip('nncf')
    out = tmp_path / 'new' / 'model.xml'
    more = ['-o', out, '--sample-images', exported.parent / 'samples', '--samples', 2, '--max-drop', 1, '--threads', 1]
    report = quantize_file(arguments(exported, *more))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == 'AP before: 1 of 1 images' and lines[-1] == 'AP after: 1 of 1 images'
    assert {*lines[1:-1]} == {'ranges: 1 of 2 images'}  # NNCF tells the end itself
    whole = {key: value for key, value in Detector(exported).metadata.values.items() if key in ORIGIN}
    assert whole.keys() == ORIGIN and is_written(exported, whole, force=False)
    with pytest.raises(InputError, match=r'was written in another precision'):  # not the export
        is_written(out, whole, force=False)
    assert report.samples == 2 and sorted(file.name for file in out.parent.iterdir()) == ['model.bin', 'model.xml']
    before = out.read_bytes()
    assert quantize_file(arguments(exported, *more)) is None and out.read_bytes() == before  # called again
    other = r'model\.xml exists already and was written with other settings \(samples: 2 there, 1 asked for now\); .*'
    with pytest.raises(InputError, match=other):
        quantize_file(arguments(exported, *more, '--samples', 1))
    assert out.read_bytes() == before
    with pytest.raises(InputError, match='is not an ONNX file'):
        quantize(out, tmp_path / 'again.xml', labelled)
    out.with_suffix('.bin').unlink()
    with pytest.raises(InputError, match=r'model\.xml exists already and is another file'):
        quantize_file(arguments(exported, *more))


@pytest.mark.parametrize(
    ('more', 'message'),
    [
        (['-o', 'a.bin'], r'a\.bin must end in \.onnx or \.xml'),
        (['-o', 'a.xml', '--samples', '0'], 'num_samples must be at least 1'),
        (['-o', 'a.xml', '--max-drop', '2'], 'max_drop must'),
        (['-o', 'a.xml', '--sample-images', 'nowhere'], 'there is no folder nowhere'),
    ],
)
def test_arguments_that_cannot_be(exported: Path, labelled: LabelledImages, more: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        quantize_file(arguments(exported, *more))


def test_the_file_itself_is_not_written_over(exported: Path, labelled: LabelledImages) -> None:
    pytest.importorskip('nncf')
    before = exported.read_bytes()
    with pytest.raises(InputError, match='would be written over itself'):
        quantize(exported, exported, labelled, force=True)
    assert exported.read_bytes() == before


def test_a_file_of_another_maker_is_refused(labelled: LabelledImages, exported: Path, tmp_path: Path) -> None:
    import onnx

    proto = onnx.load(str(exported))
    del proto.metadata_props[:]
    onnx.save(proto, str(tmp_path / 'other.onnx'))
    with pytest.raises(RuntimeInputError, match='written by another program'):
        quantize(tmp_path / 'other.onnx', tmp_path / 'a.xml', labelled)
