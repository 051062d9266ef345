"""A model shows what it finds, once an image, whatever form the image and the model come in."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from demo_cases import checkpoint
from exported_files import NAMES, write_model
from helpers import take_family
from mmdet.apis import DetInferencer
from mmdet.registry import MODELS
from mmengine.config import Config
from PIL import Image
from tolerances import within
from torch import nn

from iouquery_runtime import Detector
from mmdet_iouquery.apps.analyze.trace import trace
from mmdet_iouquery.apps.demo import model as demo_model
from mmdet_iouquery.apps.demo.animation import layer_animation
from mmdet_iouquery.apps.demo.catalogue import ListedModel, found_models
from mmdet_iouquery.apps.demo.model import DemoModel, ExportedModel
from mmdet_iouquery.apps.demo.overlay import RESULT, detections, names_of, stages
from mmdet_iouquery.errors import InputError


@pytest.fixture(scope='module')
def run(work_dirs: Path) -> ListedModel:
    return found_models(work_dirs)[0]


@pytest.fixture(scope='module')
def model(run: ListedModel) -> DemoModel:
    return DemoModel(run.config, run.checkpoint)


@pytest.mark.parametrize('threshold', [0.0, 0.3, 0.6])
def test_it_shows_what_the_model_finds(run: ListedModel, model: DemoModel, image_path: Path, threshold: float) -> None:
    check_detections(run, model, image_path, threshold)


@pytest.mark.parametrize('name', ['DEIMv2-Atto', 'ECDet-S'])
def test_detectors_that_refine_distributions_are_shown_layer_by_layer(
    name: str, run: ListedModel, image_path: Path, tmp_path: Path
) -> None:
    cfg = Config.fromfile(run.config)
    take_family(cfg, name)
    cfg.dump(tmp_path / 'config.py')
    torch.save({'state_dict': MODELS.build(cfg.model).state_dict()}, tmp_path / 'iter_1.pth')
    saved = run._replace(config=tmp_path / 'config.py', checkpoint=tmp_path / 'iter_1.pth')
    model = DemoModel(saved.config, saved.checkpoint)
    layers = [f'layer {i}' for i in range(1, cfg.model.bbox_head.decoder.num_layers)]
    assert [*model.look(image_path).stages] == ['encoder', *layers, RESULT]
    assert layer_animation(model.look(image_path), 0.0).startswith('<svg')
    check_detections(saved, model, image_path, 0.0)


def check_detections(run: ListedModel, model: DemoModel, image_path: Path, threshold: float) -> None:
    """Each query's best of the detections that mmdet's own inferencer gives."""
    inferencer = DetInferencer(str(run.config), str(run.checkpoint), device='cpu', show_progress=False)
    (result,) = inferencer(str(image_path), no_save_vis=True)['predictions']
    best: dict[tuple[float, ...], tuple[int, float]] = {}
    for box, label, score in zip(result['bboxes'], result['labels'], result['scores']):  # best first
        best.setdefault(tuple(np.round(box, 2)), (label, score))
    look = model.look(image_path)
    shown = detections(stages(look.trace)[RESULT], look.image.size, threshold)
    kept = [(box, *of) for box, of in best.items() if of[1] >= threshold]
    assert len(shown) == len(kept) > 0
    for drawn, (box, label, score) in zip(shown, kept):
        # px, rounded to two decimals
        assert np.allclose(drawn.xyxy_px, box, atol=0.006) and drawn.label == label and abs(drawn.score - score) < 1e-4


def test_the_model_runs_once_for_an_image(
    model: DemoModel, image_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = []

    def counted(*arguments: object) -> object:
        runs.append(1)
        return trace(*arguments)

    monkeypatch.setattr(demo_model, 'trace', counted)
    copy = tmp_path / 'copy.png'
    with Image.open(image_path) as opened:
        opened.save(copy)
        first = model.look(copy)
        assert model.look(copy) is first and len(runs) == 1
        opened.rotate(90).save(copy)
        os.utime(copy, (1e9, 1e9))
        assert model.look(copy) is not first and len(runs) == 2


def test_an_image_is_seen_as_the_pipeline_turns_it(model: DemoModel, tmp_path: Path) -> None:
    """A camera's note on how it was held counts; boxes and image have the same frame."""
    path = tmp_path / 'upright.jpg'
    lying = Image.new('RGB', (90, 60), (255, 0, 0))
    lying.paste((0, 0, 255), (0, 0, 45, 60))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned right by a quarter
    lying.save(path, exif=exif)
    look = model.look(path)
    assert look.image.size == look.trace.size_px == (60, 90)
    top, bottom = (np.asarray(look.image)[row, 30] for row in (10, 80))
    assert top[2] > 200 > 50 > top[0] and bottom[0] > 200 > 50 > bottom[2]


@pytest.mark.parametrize(
    ('content', 'why'),
    [
        (b'', 'the file is empty'),
        (b'no image at all', 'OpenCV .* cannot read it as an image; .*'),
        (b'\x89PNG\r\n\x1a\n' + 40 * b'\0', 'the file is cut short: the PNG has no end'),
    ],
    ids=['empty', 'text', 'png'],
)
def test_a_file_that_is_no_image_is_refused_in_a_sentence(
    model: DemoModel, tmp_path: Path, content: bytes, why: str
) -> None:
    path = tmp_path / 'notes.png'
    path.write_bytes(content)
    with pytest.raises(
        InputError, match=rf'^notes\.png is no image that can be read \({why}\); take a JPEG or PNG file$'
    ):
        model.look(path)


def test_a_model_that_cannot_be_shown_is_refused_in_a_sentence(
    run: ListedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match='does not fit the model'):
        DemoModel(run.config, checkpoint(tmp_path / 'iter_1.pth', age=0))
    blind = tmp_path / 'blind.py'
    blind.write_text(f'_base_ = [{str(run.config)!r}]\ntest_dataloader = None\nval_dataloader = None\n')
    with pytest.raises(InputError, match=r'blind\.py has neither a test_dataloader nor a val_dataloader'):
        DemoModel(blind, run.checkpoint)
    orphan = tmp_path / 'orphan.py'
    orphan.write_text("_base_ = ['/moved/away/base.py']\n")
    with pytest.raises(InputError, match=r'orphan\.py needs a file that is gone: .*/moved/away/base\.py'):
        DemoModel(orphan, run.checkpoint)
    monkeypatch.setattr(demo_model, 'load_detector', lambda *_: nn.Linear(1, 1))
    with pytest.raises(InputError, match='Linear has no queries to look at'):
        DemoModel(run.config, run.checkpoint)


def test_classes_are_the_checkpoints_else_the_configs_else_the_data_sets(
    run: ListedModel, model: DemoModel, image_path: Path, tmp_path: Path
) -> None:
    assert model.classes == tuple('abcdefghij')
    bare = tmp_path / 'bare.pth'
    torch.save(torch.load(run.checkpoint, weights_only=True)['state_dict'], bare)
    assert DemoModel(run.config, bare).classes == tuple('0123456789')
    config = tmp_path / 'config.py'
    config.write_text(f'_base_ = [{str(run.config)!r}]\ntest_dataloader = dict(dataset=dict(metainfo=None))\n')
    nameless = DemoModel(config, bare)
    assert len(nameless.classes) == 80 and nameless.classes[0] == 'person'
    boxes = stages(nameless.look(image_path).trace)[RESULT]
    assert names_of(boxes, nameless.classes) == tuple(f'class {label}' for label in range(10))


def test_an_image_in_memory_is_seen_as_its_file(model: DemoModel, image_path: Path, tmp_path: Path) -> None:
    path = tmp_path / 'copy.png'
    with Image.open(image_path) as opened:
        opened.save(path)
        from_memory, from_file = model.look(opened), model.look(path)
    assert np.array_equal(from_memory.image, from_file.image)
    for stage, other in zip(from_memory.stages.values(), from_file.stages.values()):
        assert np.array_equal(stage.boxes_px, other.boxes_px) and np.array_equal(stage.class_scores, other.class_scores)


@pytest.mark.parametrize('exported', [False, True])
def test_an_image_annotated_as_it_is_stored_is_taken_so(model: DemoModel, tmp_path: Path, exported: bool) -> None:
    """Otherwise ground truth and image would not lie on each other."""
    path = tmp_path / 'lying.jpg'
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new('RGB', (90, 60), 'red').save(path, exif=exif)
    seeing = ExportedModel(write_model(tmp_path / 'model.onnx')) if exported else model
    assert seeing.look(path, (90, 60)).image.size == (90, 60)
    assert seeing.look(path, (60, 90)).image.size == seeing.look(path).image.size == (60, 90)


def test_an_exported_file_shows_what_its_runtime_finds(image_path: Path, tmp_path: Path) -> None:
    path = write_model(tmp_path / 'model.onnx')
    exported = ExportedModel(path)
    look = exported.look(image_path)
    assert look.trace is None and list(look.stages) == [RESULT] and look.classes == NAMES
    for threshold in (0.0, 0.1):
        result = Detector(path)(image_path, score_thr=max(threshold - 1e-6, 0))
        boxes = detections(look.stages[RESULT], look.image.size, threshold)
        assert len(boxes) == len(result) > 0
        assert [box.label for box in boxes] == result.labels.tolist()
        assert np.allclose([box.score for box in boxes], result.scores)
        size = np.tile(look.image.size, 2)
        assert np.allclose([box.xyxy_px for box in boxes], result.boxes.clip(0, size), **within('px'))


def test_bad_input_of_an_exported_file_gets_a_sentence(tmp_path: Path) -> None:
    exported = ExportedModel(write_model(tmp_path / 'model.onnx'))
    notes = tmp_path / 'notes.png'
    notes.write_bytes(b'no image at all')
    with pytest.raises(InputError, match=r'^notes\.png is no image that can be read \(.*\); take a JPEG or PNG file$'):
        exported.look(notes)
    (tmp_path / 'broken.onnx').write_bytes(b'no model')
    with pytest.raises(InputError, match=r'broken\.onnx'):
        ExportedModel(tmp_path / 'broken.onnx')
