"""The few lines of Python: train, detect, test, export and analyse, as the command lines do."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from PIL import Image
from tolerances import within
from torch import nn

from iouquery_runtime import Result
from mmdet_iouquery import Detector
from mmdet_iouquery.apps.quickstart.digits import build_digits
from mmdet_iouquery.errors import InputError

CONFIG = 'quickstart/rtdetr_r18vd_digits.py'
SMALL = {
    'model.bbox_head.query_selector.num_queries': 30,
    'model.bbox_head.denoising.num_denoising': 6,
    'model.test_cfg.max_per_img': 30,
}
TRAIN, VAL = 12, 6


class Steps(Hook):
    def __init__(self) -> None:
        self.count = 0

    def after_train_iter(self, *_: Any, **__: Any) -> None:
        self.count += 1


@pytest.fixture(scope='module')
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip('sklearn')
    return Path(build_digits(tmp_path_factory.mktemp('data') / 'digits', num_train=TRAIN, num_val=VAL, image_size=96))


@pytest.fixture(scope='module')
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A detector after two epochs of three steps, and what was called meanwhile."""
    detector, steps, seen = Detector(CONFIG, cfg_options=SMALL, device='cpu'), Steps(), []
    before = detector.config.to_dict()

    def look(runner: Any) -> None:
        seen.append((runner.iter, runner.message_hub.get_scalar('val/coco/bbox_mAP').current()))

    options = dict(epochs=2, size=64, batch=4, work_dir=tmp_path_factory.mktemp('work') / 'run')
    weights = detector.train(data, hooks=[steps], callbacks=[look], **options)
    return dict(detector=detector, steps=steps, seen=seen, options=options, weights=weights, before=before)


def test_training_calls_hooks_and_callbacks(trained: dict[str, Any]) -> None:
    assert trained['steps'].count == 2 * TRAIN // 4 == 6
    assert [iteration for iteration, _ in trained['seen']] == [3, 6]
    assert trained['weights'].name == 'iter_6.pth' and trained['detector'].weights == trained['weights']
    cfg = trained['detector'].config
    assert cfg.train_cfg.max_iters == 6 and cfg.train_dataloader.batch_size == 4
    assert cfg.model.bbox_head.query_selector.num_queries == 30
    assert trained['before']['train_cfg']['max_iters'] == 900


def test_the_same_call_again_is_finished_and_another_is_refused(
    trained: dict[str, Any], data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again, steps = Detector(CONFIG, cfg_options=SMALL, device='cpu'), Steps()
    assert again.train(data, hooks=[steps], **trained['options']) == trained['weights']
    assert steps.count == 0 and 'this training is finished' in capsys.readouterr().out
    with pytest.raises(
        InputError, match=r'holds a run of another config \(there: .* --epochs 2 .*; asked for now: .* --epochs 3 '
    ):
        again.train(data, **{**trained['options'], 'epochs': 3})


def test_results_are_those_of_the_test(trained: dict[str, Any], data: Path, tmp_path: Path) -> None:
    """Every detection of every image, in the px of the original; the metrics are the last validation's."""
    detector = trained['detector']
    metrics = detector.test(out=str(tmp_path / 'found'))
    assert metrics['coco/bbox_mAP'] == pytest.approx(trained['seen'][-1][1])
    truth = json.loads((data / 'annotations' / 'val.json').read_text())
    images, category_ids = truth['images'], [category['id'] for category in truth['categories']]
    results = detector([data / 'val' / image['file_name'] for image in images], batch_size=4)
    rows = json.loads((tmp_path / 'found.bbox.json').read_text())
    for image, result in zip(images, results):
        expected = sorted((row for row in rows if row['image_id'] == image['id']), key=lambda row: -row['score'])
        ours = sorted(result.to_coco(image['id'], category_ids), key=lambda row: -row['score'])
        assert len(ours) == len(expected) == 30 and (result.width, result.height) == (96, 96)
        np.testing.assert_allclose([row['score'] for row in ours], [row['score'] for row in expected], **within('unit'))
        np.testing.assert_allclose([row['bbox'] for row in ours], [row['bbox'] for row in expected], **within('px'))
    assert detector.test(data) == pytest.approx(metrics)


def test_one_image_in_any_form_gives_one_result(trained: dict[str, Any], data: Path) -> None:
    detector, path = trained['detector'], next((data / 'val').iterdir())
    rgb = np.asarray(Image.open(path).convert('RGB'))
    result = detector(path)
    assert isinstance(result, Result) and result.path == str(path) and len(result) == 30
    assert set(result.names) <= set(detector.names) == set('0123456789')
    for other in (str(path), path.read_bytes(), Image.open(path), rgb):
        np.testing.assert_array_equal(detector(other).boxes, result.boxes)
    np.testing.assert_array_equal(detector(np.ascontiguousarray(rgb[..., ::-1]), bgr=True).scores, result.scores)
    threshold = float(np.median(result.scores))
    np.testing.assert_array_equal(detector(path, threshold).scores, result.scores[result.scores > threshold])
    assert detector([]) == []
    drawn = Image.open(BytesIO(result._repr_png_()))
    assert drawn.size == (96, 96) and (np.asarray(drawn) != rgb).any()
    assert np.array_equal(np.asarray(result.draw()), np.asarray(drawn))


def test_a_folder_to_share_and_an_exported_file_find_the_same(
    trained: dict[str, Any], data: Path, tmp_path: Path
) -> None:
    pytest.importorskip('safetensors')
    detector, path = trained['detector'], next((data / 'val').iterdir())
    detector.save_pretrained(tmp_path / 'shared', license='apache-2.0')
    opened = Detector(tmp_path / 'shared', device='cpu')
    np.testing.assert_array_equal(opened(path).boxes, detector(path).boxes)
    assert opened.names == detector.names
    pytest.importorskip('onnxruntime')
    from iouquery_runtime import Detector as Exported

    exported = Exported(detector.export(tmp_path / 'model.onnx'), threads=1)(path, 0.0)
    np.testing.assert_allclose(exported.scores, detector(path).scores, **within(torch.float32))


def test_a_config_that_was_changed_is_what_is_used(trained: dict[str, Any], data: Path, tmp_path: Path) -> None:
    changed = Detector(trained['detector'].config, trained['weights'], device='cpu')
    changed.config.model.test_cfg.max_per_img = 7
    assert len(changed(next((data / 'val').iterdir()))) == 7
    changed.test(out=str(tmp_path / 'found'))
    assert len(json.loads((tmp_path / 'found.bbox.json').read_text())) == 7 * VAL
    assert trained['detector'].config.model.test_cfg.max_per_img == 30  # which is another's
    assert isinstance(changed.config, Config) and isinstance(changed.model, torch.nn.Module)


def test_a_prepared_model_detects_the_same_and_is_trained_on(
    trained: dict[str, Any], data: Path, tmp_path: Path
) -> None:
    plain, images = trained['detector'], sorted((data / 'val').iterdir())
    prepared = Detector(plain.config, plain.weights, device='cpu', prepare=True)
    norms = [sum(isinstance(module, nn.BatchNorm2d) for module in d.model.modules()) for d in (plain, prepared)]
    assert norms[0] > 40 and norms[1] == 0
    for ours, expected in zip(prepared(images), plain(images)):
        # a sum in another order may change two of equal rank
        ours, expected = ours.to_coco(0), expected.to_coco(0)
        np.testing.assert_allclose(
            [row['score'] for row in ours], [row['score'] for row in expected], **within(torch.float32)
        )
        for row in expected:
            assert min(np.abs(np.subtract(other['bbox'], row['bbox'])).max() for other in ours) < 0.05
    before = prepared.model
    prepared.train(data, epochs=1, size=64, batch=4, work_dir=tmp_path / 'run')
    assert prepared.model is not before and len(prepared(images[0])) == 30
    assert not any(isinstance(module, nn.BatchNorm2d) for module in prepared.model.modules())


def test_the_page_about_the_queries(trained: dict[str, Any], tmp_path: Path) -> None:
    page = trained['detector'].analyze(tmp_path / 'queries', images=2, pictures=1)
    assert page == tmp_path / 'queries' / 'index.html' and 'IoU' in page.read_text(encoding='utf-8')


def test_bad_input_is_said(trained: dict[str, Any], data: Path, tmp_path: Path) -> None:
    plain = Detector(CONFIG, device='cpu')
    image = next((data / 'val').iterdir())
    for call in (lambda: plain(image), plain.test, lambda: plain.export(tmp_path / 'm.onnx')):
        with pytest.raises(InputError, match=r'has no weights.*; give weights=FILE, or call train\(\)'):
            call()
    with pytest.raises(InputError, match=r'there is no file .*none\.pth; correct the path'):
        Detector(CONFIG, weights=tmp_path / 'none.pth')
    (tmp_path / 'text.pth').write_text('an error page')
    with pytest.raises(InputError, match=r'text\.pth is no checkpoint'):
        Detector(CONFIG, weights=tmp_path / 'text.pth')
    detector = trained['detector']
    (tmp_path / 'a.jpg').write_bytes(b'no image')
    unreadable = {'gone.jpg': 'gone.jpg cannot be read: No such file', 'a.jpg': r'a.jpg: .*; repair the file'}
    for name, message in unreadable.items():
        with pytest.raises(InputError, match=message):
            detector(tmp_path / name)
    with pytest.raises(InputError, match=r'images\[0\] is a builtins.int; give a path'):
        detector([7])
    skipped = detector([tmp_path / 'gone.jpg', image, tmp_path / 'a.jpg'], batch_size=2, on_error='skip')
    assert [result.error is None for result in skipped] == [False, True, False]
    np.testing.assert_array_equal(skipped[1].scores, detector(image).scores)
    with pytest.raises(InputError, match=r'score_thr must lie in \[0, 1\), got 1'):
        detector(image, score_thr=1)
    with pytest.raises(InputError, match='batch_size must be at least 1, got 0'):
        detector(image, batch_size=0)
    with pytest.raises(InputError, match='no shipped config'):
        Detector('rtdetr_r19')
    with pytest.raises(InputError, match='nowhere'):
        plain.train(tmp_path / 'nowhere', work_dir=tmp_path / 'run')
    assert not (tmp_path / 'run' / 'config.py').exists()
