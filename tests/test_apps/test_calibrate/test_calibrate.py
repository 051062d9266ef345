"""tools/calibrate.py: what it writes is what the model then does, and what it says to bad input."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import take_family
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from tolerances import within

from mmdet_iouquery import CocoSet, find_coco_set
from mmdet_iouquery.apps.calibrate.calibration import Judged
from mmdet_iouquery.apps.calibrate.command import calibrate, config_text, fit, table
from mmdet_iouquery.apps.quickstart.command import config_text as quickstart_config
from mmdet_iouquery.apps.quickstart.digits import build_digits
from mmdet_iouquery.engine.launch import run_tool

SIZE, NUM_IMAGES = 64, 4


@pytest.fixture(scope='module')
def digits(tmp_path_factory: pytest.TempPathFactory) -> CocoSet:
    root = tmp_path_factory.mktemp('data') / 'digits'
    return find_coco_set(build_digits(root, num_train=2, num_val=NUM_IMAGES, image_size=96, progress=False))


@pytest.fixture(scope='module')
def trained(digits: CocoSet, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A config and a checkpoint of random weights, whose scores reach from about 0.1 to 0.9."""
    return random_weights(digits, tmp_path_factory.mktemp('trained'))


def random_weights(digits: CocoSet, folder: Path, family: str | None = None) -> list[str]:
    """Of the quickstart's model, or a narrow one of a family."""
    config, checkpoint = folder / 'config.py', folder / 'random.pth'
    config.write_text(quickstart_config(digits, iters=2, image_size=SIZE, num_queries=100))
    cfg = Config.fromfile(config)
    if family is not None:
        take_family(cfg, family)
        cfg.dump(config)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    for head in model.bbox_head.decoder.cls_heads:
        torch.nn.init.normal_(head.weight, std=1.6 / head.in_features**0.5)
        torch.nn.init.zeros_(head.bias)
    torch.save({'state_dict': model.state_dict()}, checkpoint)
    return [str(config), str(checkpoint)]


def detections(config: str, checkpoint: str) -> list[dict[str, np.ndarray]]:
    """What the config's model finds on the validation set, one image after the other."""
    cfg = Config.fromfile(config)
    model = MODELS.build(cfg.model).eval()
    model.load_state_dict(torch.load(checkpoint)['state_dict'])
    dataset = DATASETS.build(cfg.val_dataloader.dataset)
    predicted = []
    with torch.no_grad():
        for item in dataset:
            instances = model.test_step(pseudo_collate([item]))[0].pred_instances
            predicted.append({name: instances[name].numpy() for name in ('bboxes', 'scores', 'labels')})
    return predicted


@pytest.mark.parametrize('family', [None, 'DEIMv2-X', 'ECDet-S'])
def test_what_is_written_is_what_the_model_then_does(
    family: str | None, trained: list[str], digits: CocoSet, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    trained = trained if family is None else random_weights(digits, tmp_path, family)
    prefix = tmp_path / 'new folder' / 'fit'
    calibrate([*trained, '--out', str(prefix), '--iou', '0.2', '--device', 'cpu'])
    printed = capsys.readouterr().out
    report = json.loads(Path(f'{prefix}.json').read_text())
    assert (report['pictures'], report['iou'], report['checkpoint']) == (NUM_IMAGES, 0.2, trained[1])
    assert [row['class'] for row in report['classes']] == list('0123456789')
    assert report['all']['right'] > 0 and 'expected calibration error' in printed
    assert sum(row['objects'] for row in report['classes']) == report['all']['objects']

    plain, cut = detections(*trained), detections(f'{prefix}.py', trained[1])
    thresholds = np.array([row['threshold'] for row in report['classes']], dtype=np.float32)
    scores, precision = (report['calibration'][name] for name in ('scores', 'precision'))
    assert sum(len(entry['scores']) for entry in cut) < sum(len(entry['scores']) for entry in plain)
    for before, after in zip(plain, cut):
        kept = before['scores'] > thresholds[before['labels']]
        assert np.array_equal(before['bboxes'][kept], after['bboxes'])
        assert np.array_equal(before['labels'][kept], after['labels'])
        np.testing.assert_allclose(
            after['scores'], np.interp(before['scores'][kept], scores, precision), **within('doubles')
        )

    # a second fit starts from the scores themselves again
    calibrate([f'{prefix}.py', trained[1], '--out', str(tmp_path / 'again'), '--iou', '0.2', '--device', 'cpu'])
    assert 'model.test_cfg.score_thr of the config is left out' in capsys.readouterr().out
    again = json.loads((tmp_path / 'again.json').read_text())
    assert again['classes'] == report['classes'] and again['calibration'] == report['calibration']


def test_counts_are_those_of_the_set(
    trained: list[str], digits: CocoSet, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """With every object but one turned into a crowd nothing is right, as is said."""
    content = json.loads(digits.val_ann.read_text())
    counts = np.bincount([annotation['category_id'] for annotation in content['annotations']], minlength=11)
    calibrate([*trained, '--out', str(tmp_path / 'fit'), '--iou', '0.2', '--device', 'cpu'])
    report = json.loads((tmp_path / 'fit.json').read_text())
    numbers = {category['name']: category['id'] for category in content['categories']}
    assert [row['objects'] for row in report['classes']] == [int(counts[numbers[name]]) for name in '0123456789']

    for annotation in content['annotations'][1:]:
        annotation['iscrowd'] = 1
    crowds = tmp_path / 'crowds.json'
    crowds.write_text(json.dumps(content))
    options = [f'val_dataloader.dataset.ann_file={crowds}', f'val_evaluator.0.ann_file={crowds}']
    capsys.readouterr()
    calibrate([*trained, '--out', str(tmp_path / 'crowds'), '--device', 'cpu', '--cfg-options', *options])
    report = json.loads((tmp_path / 'crowds.json').read_text())
    assert report['all']['objects'] == 1 and sum(row.get('remark') == 'no objects' for row in report['classes']) == 9
    note = f'note: {trained[1]} has no right detection (IoU of at least 0.5) on the validation set, so what is written'
    assert note in capsys.readouterr().out


def some_judged() -> Judged:
    """Class 0 is found surely, 1 has no objects, 2 no detections, 3 nothing right."""
    labels = np.array([0, 0, 0, 1, 3])
    scores = np.array([0.9, 0.7, 0.2, 0.8, 0.6])
    return Judged(scores, labels, np.array([1, 1, 0, 0, 0], bool), np.arange(5), np.array([2, 0, 1, 1]))


def test_a_class_without_a_threshold_of_its_own_has_that_for_all() -> None:
    """All: above 0.6, two of three are right and of four found, F1 4/7; class 0 alone: above 0.2, F1 1."""
    fitted = fit(some_judged(), ['a', 'b', 'c', 'd'])
    assert fitted.overall is not None and fitted.overall.f1 == 4 / 7 and fitted.overall.threshold == 0.65
    assert fitted.thresholds == [0.45, 0.65, 0.65, 0.65]
    lines = {line.split()[0]: line for line in table(fitted).splitlines()}
    for name, why in (('b', 'no objects'), ('c', 'no detections'), ('d', 'no right detection')):
        assert lines[name].endswith(why) and ' 0.65 ' in lines[name]
    assert lines['a'].split()[1:] == ['2', '3', '0.45', '1.000', '1.000', '1.000']
    assert 'classes without a best threshold have that for all' in table(fitted)


def test_nothing_right_at_all() -> None:
    judged = some_judged()
    fitted = fit(judged._replace(right=np.zeros(5, bool)), ['a', 'b', 'c', 'd'])
    assert fitted.thresholds == [0.5] * 4 and all(math.isfinite(value) for value in fitted.errors.values())
    empty = Judged(*(column[:0] for column in judged[:4]), judged.objects)
    assert fit(empty, ['a', 'b', 'c', 'd']).errors == {'before': 0.0, 'after': 0.0, 'held_out': 0.0}


def test_names_stay_within_their_comment(tmp_path: Path) -> None:
    base = tmp_path / "it's.py"
    base.write_text('model = dict(test_cfg=dict(max_per_img=5))')
    path = tmp_path / 'fit.py'
    path.write_text(config_text(fit(some_judged(), ['a\nb', '"""', "c'", '\\']), str(base), 'a\nb"""', 0.5))
    assert Config.fromfile(path).model.test_cfg.score_thr == [0.45, 0.65, 0.65, 0.65]


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--cfg-options', 'model.bbox_head.num_classes=9'], 'model.bbox_head.num_classes=9'),
        (['--cfg-options', 'val_dataloader.dataset.ann_file=/nowhere/val.json'], '/nowhere/val.json'),
        (['--cfg-options', 'val_dataloader='], 'has no val_dataloader'),
        (['--out', '/proc/nowhere/fit'], 'cannot write to the folder /proc/nowhere: '),
    ],
    ids=['class count', 'annotations', 'no set', 'no place'],
)
def test_bad_input(
    options: list[str], message: str, trained: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert run_tool(lambda: calibrate([*trained, '--out', str(tmp_path / 'fit'), '--device', 'cpu', *options])) == 2
    assert message in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_the_tool_as_a_script(trained: list[str], tmp_path: Path) -> None:
    tool = Path(__file__).parents[3] / 'tools' / 'calibrate.py'
    command = [sys.executable, str(tool), trained[0], '/nowhere/weights.pth', '--out', str(tmp_path / 'fit')]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and 'Traceback' not in done.stderr
    assert 'error: there is no file /nowhere/weights.pth; correct the path' in done.stderr.splitlines()


@pytest.mark.parametrize('iou', ['0', '1.5', 'half'])
def test_an_overlap_out_of_range(iou: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stop:
        calibrate(['config.py', 'weights.pth', '--iou', iou])
    assert stop.value.code == 2 and '--iou' in capsys.readouterr().err
