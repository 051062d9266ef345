"""Which checkpoints the page offers, and that it shows what the model finds, once an image."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.apis import DetInferencer
from PIL import Image
from torch import nn

from mmdet_iouquery.apps.demo import session
from mmdet_iouquery.apps.demo.command import demo
from mmdet_iouquery.apps.demo.overlay import RESULT, detections, names_of, stages
from mmdet_iouquery.apps.demo.session import DemoModel, Found, found_checkpoints, named_checkpoint
from mmdet_iouquery.errors import InputError


@pytest.fixture(scope='module')
def run(work_dirs: Path) -> Found:
    return found_checkpoints(work_dirs)[0]


@pytest.fixture(scope='module')
def model(run: Found) -> DemoModel:
    return DemoModel(run.config, run.checkpoint)


def checkpoint(path: Path, age: float, config: str | None = 'config.py') -> Path:
    """A file that counts as whole, ``age`` seconds old."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({'state_dict': {'weight': torch.zeros(1)}}, path)
    os.utime(path, (1e9 - age, 1e9 - age))
    if config is not None:
        (path.parent / config).write_text('')
    return path


def test_the_quickstarts_checkpoints_come_first_then_the_newest_runs(tmp_path: Path) -> None:
    checkpoint(tmp_path / 'quickstart' / 'iter_450.pth', age=90)
    checkpoint(tmp_path / 'quickstart' / 'iter_800.pth', age=80)
    checkpoint(tmp_path / 'old' / 'epoch_9.pth', age=70, config='rtdetr.py')
    checkpoint(tmp_path / 'compared' / 'new' / 'seed_0' / 'iter_100.pth', age=10)
    checkpoint(tmp_path / 'compared' / 'new' / 'seed_0' / 'iter_50.pth', age=75)
    checkpoint(tmp_path / 'without_config' / 'iter_1.pth', age=0, config=None)
    (tmp_path / 'old' / 'torn.pth').write_bytes(b'PK')
    found = found_checkpoints(tmp_path)
    assert [one.name for one in found] == [
        'quickstart/iter_800.pth',
        'quickstart/iter_450.pth',
        'compared/new/seed_0/iter_100.pth',
        'compared/new/seed_0/iter_50.pth',
        'old/epoch_9.pth',
    ]
    assert found[0].checkpoint == tmp_path / 'quickstart' / 'iter_800.pth'
    assert [one.config.name for one in found] == ['config.py'] * 4 + ['rtdetr.py']
    assert found_checkpoints(tmp_path / 'nowhere') == []


def test_a_checkpoint_is_named_with_its_config_or_has_it_beside_it(tmp_path: Path) -> None:
    beside = checkpoint(tmp_path / 'run' / 'iter_1.pth', age=0)
    alone = checkpoint(tmp_path / 'alone' / 'iter_1.pth', age=0, config=None)
    assert named_checkpoint(beside) == Found(str(beside), tmp_path / 'run' / 'config.py', beside)
    shipped = named_checkpoint(alone, 'rtdetr/rtdetr_r18vd_8xb2-72e_coco.py')
    assert shipped.config.is_file() and shipped.config.name == 'rtdetr_r18vd_8xb2-72e_coco.py'
    with pytest.raises(InputError, match=r'no config beside .*alone.*--config'):
        named_checkpoint(alone)
    with pytest.raises(InputError, match=r'there is no checkpoint .*nowhere\.pth'):
        named_checkpoint(tmp_path / 'nowhere.pth')
    with pytest.raises(InputError, match='--checkpoint'):
        demo(['--config', 'config.py'])


@pytest.mark.parametrize('threshold', [0.0, 0.3, 0.6])
def test_it_shows_what_the_model_finds(run: Found, model: DemoModel, picture: Path, threshold: float) -> None:
    """Each query's best of the detections that mmdet's own inferencer gives."""
    inferencer = DetInferencer(str(run.config), str(run.checkpoint), device='cpu', show_progress=False)
    (result,) = inferencer(str(picture), no_save_vis=True)['predictions']
    best: dict[tuple[float, ...], tuple[int, float]] = {}
    for box, label, score in zip(result['bboxes'], result['labels'], result['scores']):  # best first
        best.setdefault(tuple(np.round(box, 2)), (label, score))
    look = model.look(picture)
    found = detections(stages(look.trace)[RESULT], look.image.size, threshold)
    kept = [(box, *of) for box, of in best.items() if of[1] >= threshold]
    assert len(found) == len(kept) > 0
    for mine, (box, label, score) in zip(found, kept):
        assert np.allclose(mine.xyxy_px, box, atol=0.05) and mine.label == label and abs(mine.score - score) < 1e-4


def test_the_model_runs_once_for_a_picture(
    model: DemoModel, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = []
    monkeypatch.setattr(session, 'trace', lambda *_: runs.append(1))
    copy = tmp_path / 'copy.png'
    with Image.open(picture) as opened:
        opened.save(copy)
        first = model.look(copy)
        assert model.look(copy) is first and len(runs) == 1
        opened.rotate(90).save(copy)
        os.utime(copy, (1e9, 1e9))
        assert model.look(copy) is not first and len(runs) == 2


def test_a_picture_is_seen_as_the_pipeline_turns_it(model: DemoModel, tmp_path: Path) -> None:
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
def test_a_file_that_is_no_picture_is_refused_in_a_sentence(
    model: DemoModel, tmp_path: Path, content: bytes, why: str
) -> None:
    path = tmp_path / 'notes.png'
    path.write_bytes(content)
    with pytest.raises(
        InputError, match=rf'^notes\.png is no image that can be read \({why}\); take a JPEG or PNG file$'
    ):
        model.look(path)


def test_a_model_that_cannot_be_shown_is_refused_in_a_sentence(
    run: Found, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
    monkeypatch.setattr(session, 'load_detector', lambda *_: nn.Linear(1, 1))
    with pytest.raises(InputError, match='Linear has no queries to look at'):
        DemoModel(run.config, run.checkpoint)


def test_classes_are_the_checkpoints_else_the_configs_else_the_data_sets(
    run: Found, model: DemoModel, picture: Path, tmp_path: Path
) -> None:
    assert model.classes == tuple('abcdefghij')
    bare = tmp_path / 'bare.pth'
    torch.save(torch.load(run.checkpoint, weights_only=True)['state_dict'], bare)
    assert DemoModel(run.config, bare).classes == tuple('0123456789')
    config = tmp_path / 'config.py'
    config.write_text(f'_base_ = [{str(run.config)!r}]\ntest_dataloader = dict(dataset=dict(metainfo=None))\n')
    nameless = DemoModel(config, bare)
    assert len(nameless.classes) == 80 and nameless.classes[0] == 'person'
    boxes = stages(nameless.look(picture).trace)[RESULT]
    assert names_of(boxes, nameless.classes) == tuple(f'class {label}' for label in range(10))
