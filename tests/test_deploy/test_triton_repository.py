"""The model repository for Triton says what its file says."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from exported_files import MAX_PER_IMG, NAMES, SIDE, metadata, write_model

from mmdet_iouquery.deploy.triton import write_repository
from mmdet_iouquery.errors import InputError

TYPES = {'TYPE_FP32': 'tensor(float)', 'TYPE_UINT8': 'tensor(uint8)', 'TYPE_INT64': 'tensor(int64)'}
TOKEN = re.compile(r'\s*(?:#[^\n]*|("(?:[^"\\]|\\.)*")|([\w.-]+)|([{}\[\]:,]))')


def parsed(text: str) -> dict[str, list[Any]]:
    """A message in protobuf's text format: the values of each field, in their order."""
    tokens = [next(filter(None, groups)) for groups in TOKEN.findall(text) if any(groups)]

    def skip(sign: str) -> bool:
        return bool(tokens) and tokens[0] == sign and bool(tokens.pop(0))

    def value() -> Any:
        if skip('{'):
            return message('}')
        token = tokens.pop(0)
        return json.loads(token) if token[0] in '"-0123456789' else token

    def message(end: str | None) -> dict[str, list[Any]]:
        fields: dict[str, list[Any]] = {}
        while tokens and not (end and skip(end)):
            values = fields.setdefault(tokens.pop(0), [])
            skip(':')
            if skip('['):
                while not skip(']'):
                    values.append(value())
                    skip(',')
            else:
                values.append(value())
            skip(',')
        return fields

    return message(None)


def test_the_parser_knows_the_format() -> None:
    text = 'a: 1 # no\nb [ { c: "x\\"{" , d: [ 1, -1 ] }, { c: "y" } ] e { } f { g: H }\na: 2'
    assert parsed(text) == {
        'a': [1, 2],
        'b': [{'c': ['x"{'], 'd': [1, -1]}, {'c': ['y']}],
        'e': [{}],
        'f': [{'g': ['H']}],
    }


def config(folder: Path) -> dict[str, list[Any]]:
    return parsed((folder / 'config.pbtxt').read_text(encoding='utf-8'))


CASES: dict[str, dict[str, Any]] = {
    'plain': {},
    'uint8': {'format_changes': {'input': 'uint8-nhwc'}},
    'raw': {'format_changes': {'output': 'raw'}},
    'fixed batch': {'batch': 4},
    'any size': {'size': None},
}


@pytest.mark.parametrize('case', CASES)
def test_the_configuration_is_that_of_the_file(case: str, tmp_path: Path) -> None:
    """Names, types and sizes, as onnxruntime reads them; of a file for any number, without the number of images."""
    source = write_model(tmp_path / 'detector.onnx', **CASES[case])
    folder = write_repository(source, tmp_path / 'models')
    assert folder == tmp_path / 'models' / 'detector'
    content = config(folder)
    served = folder / '1' / content['default_model_filename'][0]
    assert served.read_bytes() == source.read_bytes()
    assert content['name'] == ['detector'] and content['backend'] == ['onnxruntime']
    any_number = case != 'fixed batch'
    assert content['max_batch_size'] == [8 if any_number else 0]
    assert content.get('dynamic_batching') == ([{}] if any_number else None)
    session = onnxruntime.InferenceSession(served)
    for kind, tensors in (('input', session.get_inputs()), ('output', session.get_outputs())):
        assert len(content[kind]) == len(tensors)
        for entry, tensor in zip(content[kind], tensors):
            shape = [side if isinstance(side, int) else -1 for side in tensor.shape]
            assert entry['dims'] == (shape[1:] if any_number else shape)
            assert entry['name'] == [tensor.name] and TYPES[entry['data_type'][0]] == tensor.type
    parameters = {entry['key'][0]: entry['value'][0]['string_value'][0] for entry in content['parameters']}
    assert json.loads(parameters['names']) == {str(label): name for label, name in enumerate(NAMES)}
    expected = metadata(**({'imgsz': None} if case == 'any size' else {}))
    assert parameters['resize'] == expected['resize'] and parameters['default_imgsz'] == f'[{SIDE}, {SIDE}]'
    assert parameters['imgsz'] == ('null' if case == 'any size' else f'[{SIDE}, {SIDE}]')


def test_a_request_of_the_configuration_s_shapes_runs(tmp_path: Path) -> None:
    """As many images as Triton would put together."""
    folder = write_repository(write_model(tmp_path / 'm.onnx'), tmp_path / 'models', 'other-name_1.0', max_batch_size=5)
    content = config(folder)
    assert folder.name == content['name'][0] == 'other-name_1.0' and content['max_batch_size'] == [5]
    inputs = {tensor['name'][0]: np.ones([5, *tensor['dims']], np.float32) for tensor in content['input']}
    outputs = onnxruntime.InferenceSession(folder / '1' / 'model.onnx').run(None, inputs)
    shapes = {tensor['name'][0]: (5, *tensor['dims']) for tensor in content['output']}
    assert shapes == {'boxes': (5, MAX_PER_IMG, 4), 'scores': (5, MAX_PER_IMG), 'labels': (5, MAX_PER_IMG)}
    assert [output.shape for output in outputs] == [*shapes.values()]


def test_called_again_it_overwrites_what_is_its_own(tmp_path: Path) -> None:
    models = tmp_path / 'models'
    folder = write_repository(write_model(tmp_path / 'm.onnx'), models)
    (folder / '2').mkdir()
    (folder / '2' / 'model.onnx').write_bytes(b'another version')
    (models / 'neighbour').mkdir()
    write_repository(write_model(tmp_path / 'm.onnx', format_changes={'input': 'uint8-nhwc'}), models)
    assert config(folder)['input'][0]['data_type'] == ['TYPE_UINT8']
    assert (folder / '1' / 'model.onnx').read_bytes() == (tmp_path / 'm.onnx').read_bytes()
    assert (folder / '2' / 'model.onnx').read_bytes() == b'another version'
    assert sorted(path.name for path in models.iterdir()) == ['m', 'neighbour']
    (folder / 'config.pbtxt').write_text('name: "m"')
    with pytest.raises(InputError, match='models/m exists and was not written by this command; name another folder'):
        write_repository(tmp_path / 'm.onnx', models)
    assert (folder / 'config.pbtxt').read_text() == 'name: "m"'


def test_bad_input_is_a_sentence_and_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, models = write_model(tmp_path / 'm.onnx'), tmp_path / 'models'
    (tmp_path / 'page.onnx').write_text('<html>')
    plain = onnx.load(source)
    del plain.metadata_props[:]
    onnx.save(plain, tmp_path / 'other.onnx')
    big = onnx.load(source)
    onnx.save(big, tmp_path / 'parts.onnx', save_as_external_data=True, size_threshold=0)
    for name, message in {
        'none.onnx': 'there is no file .*none.onnx',
        'page.onnx': 'page.onnx is not an ONNX file: ',
        'other.onnx': r'other.onnx was not written by `iouquery export` \(no iouquery.format in it\); export',
        'parts.onnx': 'parts.onnx has its weights in other files; export it again as one file',
    }.items():
        with pytest.raises(InputError, match=message):
            write_repository(tmp_path / name, models)
    for name in ('a/b', '', '..', 'a b'):
        with pytest.raises(InputError, match='the name of a model in Triton must be made of letters'):
            write_repository(source, models, name)
    with pytest.raises(InputError, match='max_batch_size must be at least 1'):
        write_repository(source, models, max_batch_size=0)
    assert not models.exists()

    def full(from_path: Path, to_path: Path) -> None:
        Path(to_path).write_bytes(b'half')
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(shutil, 'copyfile', full)
    with pytest.raises(InputError, match='models/m cannot be written: No space left on device'):
        write_repository(source, models)
    assert [*models.iterdir()] == []
