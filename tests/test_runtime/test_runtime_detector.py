"""A detector from a file: what it detects, what it takes, what it refuses."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from exported_files import MAX_PER_IMG, NAMES, SIDE, metadata, raw_outputs, write_model, write_openvino
from image_files import half_of_zeros, random_image
from PIL import Image
from tolerances import within

from iouquery_runtime import Detector, InputError, Result
from iouquery_runtime import backends as backends_module
from iouquery_runtime.backends import openvino_core
from iouquery_runtime.metadata import Metadata, Resize
from iouquery_runtime.preprocess import resized

SIZES = ((97, 41), (64, 64), (200, 333), (30, 20), (640, 480))


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of every kind, and images ``0.png`` to ``4.png`` of different sizes."""
    folder = tmp_path_factory.mktemp('files')
    write_model(folder / 'model.onnx')
    write_model(folder / 'uint8.onnx', format_changes={'input': 'uint8-nhwc'})
    write_model(folder / 'raw.onnx', format_changes={'output': 'raw'})
    write_model(folder / 'fixed.onnx', batch=3)
    write_model(folder / 'any-size.onnx', size=None)
    for name in ('model', 'raw', 'fixed', 'uint8'):
        write_openvino(folder / f'{name}.onnx', folder / f'{name}.xml')
    for i, size in enumerate(SIZES):
        random_image(*size, seed=i).save(folder / f'{i}.png')
    return folder


@pytest.fixture(scope='module')
def images(folder: Path) -> list[Path]:
    return [folder / f'{i}.png' for i in range(len(SIZES))]


def expected(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes, scores and labels by the formula of the graph."""
    image = Image.open(path)
    logits, boxes = raw_outputs(resized(np.asarray(image), SIDE, SIDE, Resize())[None])
    scores = (1 / (1 + np.exp(-logits[0]))).ravel()
    best = np.argsort(-scores)[:MAX_PER_IMG]
    cx, cy, w, h = boxes[0][best // 3].T
    width, height = image.size
    corners = np.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], -1) * [width, height, width, height]
    return np.clip(corners, 0, [width, height, width, height]), scores[best], best % 3


def check(result: Result, path: Path) -> None:
    boxes, scores, labels = expected(path)
    np.testing.assert_array_equal(result.labels, labels)
    np.testing.assert_allclose(result.scores, scores, **within())
    np.testing.assert_allclose(result.boxes, boxes, rtol=0, atol=1e-3)  # px
    assert result.names == tuple(NAMES[label] for label in labels)
    assert (result.width, result.height) == Image.open(path).size and result.error is None
    assert (result.boxes.dtype, result.scores.dtype, result.labels.dtype) == (np.float32, np.float32, np.int64)


FILES = ('model.onnx', 'uint8.onnx', 'raw.onnx', 'fixed.onnx', 'any-size.onnx')
OPENVINO_FILES = ('model.xml', 'raw.xml', 'fixed.xml', 'uint8.xml')


@pytest.mark.parametrize('batch_size', [1, 2, 3])
@pytest.mark.parametrize('name', [*FILES, *OPENVINO_FILES])
def test_detections_are_those_of_the_graph(name: str, batch_size: int, folder: Path, images: list[Path]) -> None:
    """Of every kind of file, whatever the batch; a graph of a fixed number is filled up, and nothing of it shows."""
    results = Detector(folder / name, threads=1)(images, batch_size=batch_size)
    assert len(results) == len(images)
    for result, path in zip(results, images):
        check(result, path)
        assert result.path == str(path)


def test_an_image_is_a_path_a_file_s_content_an_array_or_one_of_pillow(folder: Path, images: list[Path]) -> None:
    detector = Detector(folder / 'model.onnx')
    rgb = np.asarray(Image.open(images[0]))
    for image in (str(images[0]), images[0], images[0].read_bytes(), Image.open(images[0]), rgb):
        result = detector(image)
        check(result, images[0])
    check(detector(rgb[..., ::-1], bgr=True), images[0])
    assert not np.allclose(detector(rgb[..., ::-1]).scores, expected(images[0])[1], atol=1e-3)  # far more than rounding
    mixed = detector((image for image in (images[3], rgb, Image.open(images[2]))), batch_size=2)
    for result, i in zip(mixed, (3, 0, 2)):
        check(result, images[i])
    assert [result.path for result in mixed] == [str(images[3]), None, None]
    assert detector([]) == [] and [type(x).__name__ for x in detector([images[0]])] == ['Result']


def test_metadata_is_there_to_be_read(folder: Path) -> None:
    detector = Detector(folder / 'model.onnx')
    assert detector.names == NAMES and detector.image_size == (SIDE, SIDE)
    assert detector.metadata.values['std'] == '[255, 255, 255]'
    assert repr(detector) == f"Detector('{folder}/model.onnx': 3 classes, 64 x 64 px)"
    assert Detector(folder / 'any-size.onnx').image_size == (SIDE, SIDE)


def test_an_image_that_cannot_be_read_is_raised_or_skipped(folder: Path, images: list[Path], tmp_path: Path) -> None:
    broken = tmp_path / 'broken.png'
    broken.write_bytes(half_of_zeros(images[2].read_bytes()))
    detector = Detector(folder / 'model.onnx')
    with pytest.raises(InputError, match=f'^{broken}: the file is damaged'):
        detector([images[0], broken])
    good, bad, missing, other = detector([images[0], broken, 'none.png', images[1]], batch_size=2, on_error='skip')
    check(good, images[0])
    check(other, images[1])
    assert str(bad.error).startswith(f'{broken}: the file is damaged: wrong checksum')
    assert str(missing.error) == 'none.png cannot be read: No such file or directory; correct the path, or leave it out'
    assert bad.path == str(broken) and len(bad) == 0 and bad.boxes.shape == (0, 4) and bad.names == ()


def test_settings_of_the_file_hold_unless_a_threshold_is_given(images: list[Path], tmp_path: Path) -> None:
    _, scores, labels = expected(images[0])
    low, high = ((scores[i - 1] + scores[i]) / 2 for i in (7, 3))
    by_class = [low, high, low]
    calibration = {'scores': [0, high, 1], 'precision': [0, 0.3, 0.8]}
    test_cfgs: dict[str, Any] = {
        'one': {'score_thr': low},
        'by class': {'score_thr': by_class},
        'overlap': {'overlap_thr': 0.2},
        'calibration': {'calibration': calibration, 'score_thr': low},
    }
    for output in ('detections', 'raw'):
        detectors = {
            name: Detector(
                write_model(tmp_path / f'{name} {output}.onnx', format_changes={'test_cfg': test_cfg, 'output': output})
            )
            for name, test_cfg in test_cfgs.items()
        }
        above = scores > np.array(by_class)[labels]
        assert 0 < above.sum() < 7
        for name, threshold, chosen in (
            ('one', None, scores[:7]),
            ('one', high, scores[:3]),
            ('one', 0, scores),
            ('one', by_class, scores[above]),
            ('by class', None, scores[above]),
            ('by class', low, scores[:7]),
            ('calibration', None, np.interp(scores[:7], calibration['scores'], calibration['precision'])),
            ('calibration', high, np.interp(scores[:3], calibration['scores'], calibration['precision'])),
        ):
            actual = detectors[name](images[0], score_thr=threshold).scores  # type: ignore[arg-type]
            np.testing.assert_allclose(actual, chosen, **within(), err_msg=f'{name} {threshold}')
        assert 0 < len(detectors['overlap'](images[0])) < MAX_PER_IMG


@pytest.mark.parametrize('name', ['model.onnx', 'model.xml'])
def test_threads_may_share_a_detector(name: str, folder: Path, images: list[Path]) -> None:
    detector, barrier = Detector(folder / name, threads=1), threading.Barrier(4)

    def detected(i: int) -> Result:
        barrier.wait(timeout=60)
        return [detector(images[i]) for _ in range(10)][-1]

    with ThreadPoolExecutor(4) as pool:
        for i, result in enumerate(pool.map(detected, range(4))):
            check(result, images[i])


def test_no_more_threads_are_used_than_there_are_cores(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each would wait for the others."""
    compiled = Detector(folder / 'model.xml', threads=1000)._backend._compiled  # type: ignore[attr-defined]
    assert compiled.get_property('INFERENCE_NUM_THREADS') <= backends_module.num_cores() <= (os.cpu_count() or 1)
    monkeypatch.setattr(backends_module, 'num_cores', lambda: 3)
    for asked, used in ((1000, 3), (2, 2)):
        session = Detector(folder / 'model.onnx', threads=asked)._backend._session  # type: ignore[attr-defined]
        assert session.get_session_options().intra_op_num_threads == used


def test_images_are_resized_to_another_size_where_the_file_takes_any(folder: Path, images: list[Path]) -> None:
    """The detector's scores are those of the formula at that size; it goes with the detector to other processes."""
    detector = Detector(folder / 'any-size.onnx', image_size=np.array([96, 160]))  # type: ignore[arg-type]
    stretched = resized(np.asarray(Image.open(images[2])), 96, 160, Resize())
    scores = np.sort(1 / (1 + np.exp(-raw_outputs(stretched[None]).logits.ravel())))[::-1][:MAX_PER_IMG]
    for candidate in (detector, pickle.loads(pickle.dumps(detector))):
        assert candidate.image_size == (96, 160)
        np.testing.assert_allclose(candidate(images[2]).scores, scores, **within())
    assert Detector(folder / 'model.onnx', image_size=[SIDE, SIDE]).image_size == (SIDE, SIDE)


@pytest.mark.parametrize(
    ('name', 'size', 'message'),
    [
        (
            'model.onnx',
            (96, 64),
            r'takes images of 64x64 .* alone, got 96x64; .*`iouquery export --dynamic-size`',
        ),
        ('model.xml', (64, 96), r'model.xml takes images of 64x64'),
        ('any-size.onnx', (100, 1), r'multiples of 32, got 100x1; nearest is 96x32'),
        ('any-size.onnx', 64, 'image_size must be a height and a width in px, got 64'),
        ('any-size.onnx', (64, 64, 3), 'image_size must be a height and a width in px, got'),
        ('any-size.onnx', (0, 64), 'a side of image_size must be at least 1 and a whole number, got 0'),
        ('any-size.onnx', (64.0, 64), 'a side of image_size must be at least 1 and a whole number, got 64.0'),
        ('four.onnx', (20, 33), r'multiples of 32, got 20x33; nearest is 64x64$'),  # of 20 tokens; 32x32 has 5
        ('four.onnx', (32, 32), 'four.onnx chooses its queries from 6 tokens .* 32x32 .* has 5; name a larger'),
    ],
)
def test_sizes_that_a_file_does_not_take_are_refused(name: str, size: Any, message: str, folder: Path) -> None:
    write_model(folder / 'four.onnx', size=None, format_changes={'strides': [16, 32], 'min_tokens': 6})
    with pytest.raises(InputError, match=message):
        Detector(folder / name, image_size=size)
    if size == (32, 32):
        with pytest.raises(InputError, match=message):
            Detector(folder / name).detect_resized([np.zeros((32, 32, 3), np.uint8)], [(9, 9)])


def in_another_process(detector: Detector, path: Path) -> list[float]:
    return [float(score) for score in detector(path).scores]


def test_a_detector_goes_to_other_processes_by_its_path(
    folder: Path, images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    for name, options in (('model.onnx', {}), ('model.xml', {'precision': None})):
        detector = Detector(name, 1, ['CPUExecutionProvider'] if name.endswith('onnx') else ['CPU'], **options)  # type: ignore[arg-type]
        content = pickle.dumps(detector)
        assert len(content) < 1000 and str(folder).encode() in content
        monkeypatch.chdir('/')
        again = pickle.loads(content)
        check(again(images[0]), images[0])
        monkeypatch.chdir(folder)
    with multiprocessing.get_context('spawn').Pool(1) as pool:
        scores = pool.apply(in_another_process, (detector, images[1]))
    np.testing.assert_allclose(scores, expected(images[1])[1], **within())


def test_bfloat16_is_a_hint_to_openvino(folder: Path, images: list[Path]) -> None:
    detector = Detector(folder / 'model.xml', precision='bfloat16')
    assert detector._backend._compiled.get_property('INFERENCE_PRECISION_HINT').to_string() == 'bf16'  # type: ignore[attr-defined]
    plain = Detector(folder / 'model.xml')._backend._compiled.get_property('INFERENCE_PRECISION_HINT')  # type: ignore[attr-defined]
    assert plain.to_string() == 'f32'
    # five roundings of bfloat16
    np.testing.assert_allclose(detector(images[0]).scores, expected(images[0])[1], rtol=0, atol=0.02)
    with pytest.raises(InputError, match='bfloat16 is for OpenVINO files'):
        Detector(folder / 'model.onnx', precision='bfloat16')
    with pytest.raises(InputError, match="precision must be 'bfloat16' or None, got 'half'"):
        Detector(folder / 'model.xml', precision='half')


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_arguments_out_of_range_are_refused(folder: Path, images: list[Path]) -> None:
    detector = Detector(folder / 'fixed.onnx')
    wrong: list[tuple[dict[str, Any], str]] = [
        (dict(batch_size=4), r'takes batches of 3, so batch_size can be 3 at most, got 4; export it without --batch'),
        (dict(batch_size=0), 'batch_size must be at least 1 and a whole number, got 0'),
        (dict(batch_size=True), 'batch_size must be at least 1 and a whole number, got True'),
        (dict(batch_size=1.5), 'batch_size must be at least 1'),
        (dict(score_thr=1.0), r'score_thr must lie in \[0, 1\), got 1.0'),
        (dict(score_thr=-0.1), r'score_thr must lie in \[0, 1\)'),
        (dict(score_thr=float('nan')), r'score_thr must lie in \[0, 1\)'),
        (dict(score_thr=[0.1, 0.2]), 'score_thr has 2 numbers for 3 classes'),
        (dict(on_error='ignore'), r"on_error must be one of \['raise', 'skip'\], got 'ignore'"),
    ]
    for arguments, message in wrong:
        with pytest.raises(InputError, match=message):
            detector(images[0], **arguments)
    with pytest.raises(InputError, match='threads must be at least 1 and a whole number, got 0'):
        Detector(folder / 'model.onnx', threads=0)
    with pytest.raises(InputError, match=r"has no provider 'Abacus', only .*CPUExecutionProvider.*; for CUDA: pip"):
        Detector(folder / 'model.onnx', providers=['Abacus'])
    with pytest.raises(InputError, match=r"OpenVINO finds no device 'ABACUS' here, only CPU"):
        Detector(folder / 'model.xml', providers=['ABACUS'])


def test_providers_go_to_onnxruntime_in_their_order(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    detector = Detector(folder / 'model.onnx', providers=[('CPUExecutionProvider', {'use_arena': '1'})])
    assert detector._backend._session.get_providers() == ['CPUExecutionProvider']  # type: ignore[attr-defined]

    class Runtime:
        @staticmethod
        def get_available_providers() -> list[str]:
            return ['TensorrtExecutionProvider', 'CUDAExecutionProvider', 'CPUExecutionProvider']

    assert backends_module._providers(Runtime, None) == ['CUDAExecutionProvider', 'CPUExecutionProvider']
    chosen = ['TensorrtExecutionProvider', 'CPUExecutionProvider']
    assert backends_module._providers(Runtime, chosen) == chosen


def test_files_that_are_none_of_ours_are_refused(folder: Path, tmp_path: Path) -> None:
    contents = {
        'page.onnx': b'<!DOCTYPE html>',
        'empty.onnx': b'',
        'cut.onnx': (folder / 'model.onnx').read_bytes()[:-500],
    }
    for name, content in contents.items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(
            InputError, match=rf'^{path} is not an ONNX file that onnxruntime [\d.]+ can run: [^\n]*; export'
        ):
            Detector(path)
    plain = onnx.load(folder / 'model.onnx')
    del plain.metadata_props[:]
    onnx.save(plain, tmp_path / 'other.onnx')
    with pytest.raises(
        InputError, match=r'other.onnx does not say how .* another program; export the detector with `iouquery export`'
    ):
        Detector(tmp_path / 'other.onnx')
    for name, message in {
        'none.onnx': 'there is no file none.onnx',
        'checkpoint.pth': r'checkpoint.pth is neither .onnx nor .xml \(OpenVINO\); export a checkpoint with',
    }.items():
        with pytest.raises(InputError, match=message):
            Detector(name)


def test_files_of_openvino_that_are_none_of_ours_are_refused(folder: Path, tmp_path: Path) -> None:
    import openvino

    (tmp_path / 'lonely.xml').write_bytes((folder / 'model.xml').read_bytes())
    with pytest.raises(
        InputError, match=r'lonely.xml has its weights in lonely.bin, which is not beside it; copy both'
    ):
        Detector(tmp_path / 'lonely.xml')
    (tmp_path / 'page.xml').write_text('<html></html>')
    (tmp_path / 'page.bin').write_bytes(b'')
    with pytest.raises(
        InputError, match=r'page.xml is not a model that OpenVINO 20[\d.]+ can read: [^\n]*; export it again'
    ):
        Detector(tmp_path / 'page.xml')
    openvino.save_model(openvino_core().read_model(folder / 'model.onnx'), tmp_path / 'other.xml')
    with pytest.raises(InputError, match=r'other.xml does not say how'):
        Detector(tmp_path / 'other.xml')


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (
            {'iouquery.format': '2'},
            r'm.onnx is of format 2, and this iouquery_runtime reads formats up to 1: pip install -',
        ),
        ({'iouquery.format': 'one'}, r"m.onnx has the unknown iouquery.format 'one'; export it again"),
        ({'iouquery.format': None}, r'm.onnx does not say how it is to be used \(it has no iouquery.format\)'),
        ({'names': None}, "m.onnx has no 'names' in its metadata"),
        ({'names': '{0: person}'}, "m.onnx has '{0: person}' for 'names' in its metadata"),
        ({'names': {'0': 'a', '2': 'c'}}, "for 'names' in its metadata"),
        ({'names': ['a']}, "for 'names' in its metadata"),
        (
            {'task': 'segment'},
            "has 'segment' for 'task' in its metadata, which iouquery_runtime does not know how to use",
        ),
        ({'input': 'float16-nchw'}, "has 'float16-nchw' for 'input'"),
        ({'output': None}, "has no 'output' in"),
        ({'channel_order': 'BGR'}, "has 'BGR' for 'channel_order'"),
        ({'resize': {'mode': 'letterbox', 'interpolation': 'bilinear', 'antialias': True}}, "letterbox.* for 'resize'"),
        ({'resize': {'mode': 'stretch', 'interpolation': 'bicubic', 'antialias': False}}, "for 'resize'"),
        ({'resize': {'mode': 'stretch', 'interpolation': 'area', 'antialias': True}}, "for 'resize'"),
        ({'imgsz': [64]}, r"has '\[64\]' for 'imgsz'"),
        ({'imgsz': [64, 'x']}, "for 'imgsz'"),
        ({'default_imgsz': 'null'}, "has 'null' for 'default_imgsz'"),
        ({'max_per_img': 'many'}, "has 'many' for 'max_per_img'"),
        ({'test_cfg': '[]'}, "for 'test_cfg'"),
        ({'strides': [8, 0], 'min_tokens': 1}, r"has '\[8, 0\]' for 'strides'"),
        ({'strides': [8]}, "no 'min_tokens'"),
    ],
)
def test_metadata_that_cannot_be_used_are_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        Metadata.read(metadata(**changes), 'm.onnx')
    assert '\n' not in str(raised.value) and re.search('export|pip install', str(raised.value))


def test_a_graph_that_is_not_as_its_metadata_say_is_refused(folder: Path, tmp_path: Path) -> None:
    model = onnx.load(folder / 'raw.onnx')
    onnx.helper.set_model_props(model, metadata())
    onnx.save(model, tmp_path / 'mixed.onnx')
    with pytest.raises(
        InputError, match=r"mixed.onnx has inputs \['images'\] and outputs \['boxes', 'logits'\], but for its"
    ):
        Detector(tmp_path / 'mixed.onnx')


def test_every_interpolation_is_one_of_pillow_s(folder: Path, images: list[Path], tmp_path: Path) -> None:
    for name in ('nearest', 'bicubic', 'lanczos', 'hamming', 'box'):
        resize = {'mode': 'stretch', 'interpolation': name, 'antialias': True}
        path = write_model(tmp_path / f'{name}.onnx', format_changes={'resize': resize, 'output': 'raw'})
        image = Image.open(images[2])
        stretched = np.asarray(image.resize((SIDE, SIDE), Image.Resampling[name.upper()]))
        logits, _ = raw_outputs(stretched[None])
        scores = np.sort(1 / (1 + np.exp(-logits.ravel())))[::-1][:MAX_PER_IMG]
        np.testing.assert_allclose(Detector(path)(images[2]).scores, scores, **within())


def test_metadata_of_openvino_are_those_of_onnx(folder: Path) -> None:
    values = Detector(folder / 'model.xml').metadata.values
    assert values == Detector(folder / 'model.onnx').metadata.values
    assert json.loads(values['names'])['2'] == NAMES[2]


def test_a_signal_is_handled_after_detectors_of_openvino_are_gone(folder: Path) -> None:
    """In the order in which they were opened; a stack of handlers that is gone would end the process."""
    program = (
        'import os, signal, sys\n'
        'from iouquery_runtime import Detector\n'
        'first, second = Detector(sys.argv[1]), Detector(sys.argv[1])\n'
        'del first\n'
        'del second\n'
        "signal.signal(signal.SIGUSR1, lambda *_: print('handled'))\n"
        'os.kill(os.getpid(), signal.SIGUSR1)\n'
    )
    command = [sys.executable, '-c', program, str(folder / 'model.xml')]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, 'handled\n'), done.stderr
