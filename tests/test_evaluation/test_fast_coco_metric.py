"""FastCocoMetric: the numbers, lines and files of mmdet's CocoMetric, whatever evaluates the boxes."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pycocotools.cocoeval
import pytest
import torch
from coco_cases import NUMBERS, REASON, SQUARE, Case, make_case, random_case, with_faster
from mmdet.evaluation import CocoMetric
from mmdet.evaluation.metrics import coco_metric
from mmdet.registry import METRICS
from mmengine.logging import MMLogger
from pycocotools.cocoeval import COCOeval

from mmdet_iouquery.compat import boxes_evaluated_by
from mmdet_iouquery.errors import InputError
from mmdet_iouquery.evaluation import FastCocoMetric, faster_coco
from mmdet_iouquery.evaluation.faster_coco import FasterCOCOeval

FASTER, PLAIN = 'faster-coco-eval', 'pycocotools'
BACKENDS = [pytest.param(FASTER, marks=with_faster), PLAIN]


class Outcome(NamedTuple):
    """What an evaluation gives, logs and prints."""

    metrics: dict[str, float]
    log: list[str]
    printed: list[str]


def write(case: Case, folder: Path) -> str:
    (folder / 'truth.json').write_text(json.dumps(case.truth))
    return str(folder / 'truth.json')


def samples_of(case: Case) -> list[dict[str, Any]]:
    """The detections as a detector's data samples, one an image; labels number the file's categories."""
    labels = {category['id']: label for label, category in enumerate(case.truth['categories'])}
    samples = []
    for image in case.truth['images']:
        detections = [detection for detection in case.detections if detection['image_id'] == image['id']]
        boxes = torch.tensor([detection['bbox'] for detection in detections], dtype=torch.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        predicted = dict(
            bboxes=boxes,
            scores=torch.tensor([detection['score'] for detection in detections], dtype=torch.float64),
            labels=torch.tensor([labels[detection['category_id']] for detection in detections], dtype=torch.long),
        )
        instances = [
            dict(
                bbox=[
                    *annotation['bbox'][:2],
                    annotation['bbox'][0] + annotation['bbox'][2],
                    annotation['bbox'][1] + annotation['bbox'][3],
                ],
                bbox_label=labels[annotation['category_id']],
                ignore_flag=annotation['iscrowd'],
            )
            for annotation in case.truth['annotations']
            if annotation['image_id'] == image['id']
        ]
        shape = image['height'], image['width']
        samples.append(dict(img_id=image['id'], ori_shape=shape, pred_instances=predicted, instances=instances))
    return samples


class Lines(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@pytest.fixture
def log() -> Any:
    handler = Lines()
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel('INFO')
    yield handler.lines
    logger.removeHandler(handler)
    logger.setLevel(level)


def outcome_of(
    metric: CocoMetric, case: Case, log: list[str], capsys: pytest.CaptureFixture[str], masked: bool = False
) -> Outcome:
    """Evaluate a detector's samples with a metric; of what is printed, the lines of the twelve numbers."""
    metric.dataset_meta = dict(classes=tuple(category['name'] for category in case.truth['categories']))
    samples = samples_of(case)
    for sample in samples if masked else ():
        number = len(sample['pred_instances']['bboxes'])
        sample['pred_instances']['masks'] = torch.zeros(number, *sample['ori_shape'], dtype=torch.bool)
        sample['pred_instances']['masks'][:, :20, :20] = True
    log.clear()
    capsys.readouterr()
    metric.process({}, samples)
    metrics = metric.evaluate(len(samples))
    return Outcome(metrics, list(log), [line for line in capsys.readouterr().out.splitlines() if '@[' in line])


def assert_equal_outcomes(actual: Outcome, expected: Outcome) -> None:
    """Equal keys in equal order, values (NaN too), tables and printed lines."""
    assert list(actual.metrics) == list(expected.metrics)
    np.testing.assert_array_equal(list(actual.metrics.values()), list(expected.metrics.values()))
    assert actual.log == expected.log
    assert actual.printed == expected.printed


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize(
    'options',
    [
        {'metric_items': NUMBERS},
        {'classwise': True},
        {'classwise': True, 'proposal_nums': (1, 10, 100), 'iou_thrs': np.array([0.5, 0.6, 0.7, 0.8, 0.85, 0.9])},
        {'metric': ['bbox', 'proposal'], 'proposal_nums': (100, 3, 10)},
        {'metric': 'proposal', 'metric_items': NUMBERS, 'prefix': 'val'},
    ],
    ids=['12 numbers', 'classwise', 'other limits and thresholds', 'boxes and proposals', '12 numbers of proposals'],
)
def test_metrics_tables_and_lines_are_the_parents(
    backend: str, options: dict[str, Any], tmp_path: Path, log: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in (1, 5):
        case = random_case(seed)
        file = write(case, tmp_path)
        parent = outcome_of(CocoMetric(file, **options), case, log, capsys)
        ours = outcome_of(FastCocoMetric(file, backend=backend, **options), case, log, capsys)
        assert parent.metrics
        assert_equal_outcomes(parent, ours)


@pytest.mark.parametrize(('backend', 'expected'), [pytest.param(FASTER, 0.188, marks=with_faster), (PLAIN, 0.187)])
def test_a_mean_halfway_between_two_figures_is_where_a_difference_shows(
    backend: str, expected: float, tmp_path: Path, log: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """3 of 16 classes found: 0.1875, but for pycocotools a hair less, as its precision of 1 of 1."""
    classes = range(1, 17)
    case = make_case([(1, c, SQUARE) for c in classes], [(1, c, SQUARE, 0.5) for c in classes[:3]], classes=classes)
    file = write(case, tmp_path)
    parent = outcome_of(CocoMetric(file), case, log, capsys)
    ours = outcome_of(FastCocoMetric(file, backend=backend), case, log, capsys)
    assert (parent.metrics['coco/bbox_mAP'], ours.metrics['coco/bbox_mAP']) == (0.187, expected)


@pytest.mark.parametrize('backend', BACKENDS)
def test_truth_that_comes_with_the_samples(
    backend: str, tmp_path: Path, log: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """No annotation file: the metric makes one. Files are the parent's, and ``format_only`` evaluates nothing."""
    case = random_case(5)
    outcomes, files = [], []
    for name, settings_of_it in ((CocoMetric, {}), (FastCocoMetric, {'backend': backend})):
        for only in (False, True):
            folder = tmp_path / f'{name.__name__}{only}'
            metric = name(format_only=only, outfile_prefix=str(folder / 'it'), **settings_of_it)
            outcomes.append(outcome_of(metric, case, log, capsys))
            files.append([path.name for path in sorted(folder.iterdir())])
            files.append(json.loads((folder / 'it.bbox.json').read_text()))
    assert_equal_outcomes(outcomes[0], outcomes[2])
    assert outcomes[0].metrics['coco/bbox_mAP'] > 0 and outcomes[3].metrics == {}
    assert files[:4] == files[4:]


@pytest.mark.parametrize('backend', BACKENDS)
def test_a_set_without_any_detection_ends_as_with_the_parent(
    backend: str, tmp_path: Path, log: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    case = random_case(5)._replace(detections=[])
    file = write(case, tmp_path)
    parent = outcome_of(CocoMetric(file), case, log, capsys)
    ours = outcome_of(FastCocoMetric(file, backend=backend), case, log, capsys)
    assert ours == parent and parent.metrics == {} and 'whole dataset is empty' in parent.log[-1]


@pytest.mark.parametrize('backend', BACKENDS)
def test_classes_of_the_model_may_be_some_of_the_files(backend: str, tmp_path: Path) -> None:
    case = random_case(5)
    file = write(case, tmp_path)
    names = tuple(category['name'] for category in case.truth['categories'])
    metrics = []
    for metric in (CocoMetric(file, classwise=True), FastCocoMetric(file, backend=backend, classwise=True)):
        metric.dataset_meta = dict(classes=names[:-1])
        samples = samples_of(case)
        for sample in samples:
            predicted = sample['pred_instances']
            kept = predicted['labels'] < len(names) - 1
            sample['pred_instances'] = {key: value[kept] for key, value in predicted.items()}
        metric.process({}, samples)
        metrics.append(metric.evaluate(len(samples)))
    np.testing.assert_equal(metrics[1], metrics[0])
    assert sum(key.endswith('_precision') for key in metrics[0]) == len(names) - 1


@with_faster
def test_masks_and_fast_proposals_stay_the_parents(
    tmp_path: Path, log: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    case = make_case([(1, 1, [0.0, 0.0, 20.0, 22.0]), (1, 1, SQUARE)], [(1, 1, SQUARE, 0.9)])
    for annotation in case.truth['annotations']:
        x, y, w, h = annotation['bbox']
        [annotation['segmentation']] = [[[x, y, x + w, y, x + w, y + h, x, y + h]]]
    file = write(case, tmp_path)
    seen: list[str] = []
    monkeypatch.setattr(
        FasterCOCOeval, 'evaluate', lambda self: seen.append(self.params.iouType) or COCOeval.evaluate(self)
    )
    options = {'metric': ['segm', 'proposal_fast', 'bbox']}
    parent = outcome_of(CocoMetric(file, **options), case, log, capsys, masked=True)
    ours = outcome_of(FastCocoMetric(file, backend=FASTER, **options), case, log, capsys, masked=True)
    assert_equal_outcomes(parent, ours)
    assert parent.metrics['coco/segm_mAP'] > 0 and seen == ['bbox']


# --- which back end ---------------------------------------------------------------------------------------------------


def missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faster_coco, 'distribution_version', lambda name: None)


def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise ImportError('libstdc++.so.6: version not found')

    monkeypatch.setattr(faster_coco, 'distribution_version', lambda name: '1.8.0')
    monkeypatch.setattr(faster_coco.importlib, 'import_module', refuse)


def too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faster_coco, 'distribution_version', lambda name: '1.6.8')


def other_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(coco_metric, 'COCOeval')


OBSTACLES = {
    missing: 'it is not installed',
    broken: '1.8.0 does not import: libstdc++',
    too_old: '1.6.8 is installed and >=1.7.2,<2.0 is needed',
    other_parent: 'takes no COCOeval from the module',
}


@pytest.mark.parametrize('obstruct', OBSTACLES, ids=lambda obstacle: obstacle.__name__)
def test_a_back_end_that_cannot_be_used_is_named_with_the_reason(
    obstruct: Any, monkeypatch: pytest.MonkeyPatch, log: list[str]
) -> None:
    obstruct(monkeypatch)
    with pytest.raises(InputError, match=re.escape(OBSTACLES[obstruct])) as error:
        FastCocoMetric(backend=FASTER)
    assert "python -m pip install 'faster-coco-eval>=1.7.2,<2.0'" in str(error.value)
    assert FastCocoMetric(backend='auto').backend == PLAIN
    [line] = log
    assert f'evaluated by {PLAIN}' in line and OBSTACLES[obstruct] in line


@pytest.mark.parametrize('backend', ['auto', PLAIN, pytest.param(FASTER, marks=with_faster)])
def test_the_log_says_once_which_back_end_it_is_and_that_one_is_at_work(
    backend: str, tmp_path: Path, log: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = PLAIN if backend == PLAIN or REASON else FASTER
    runs: list[int] = []
    evaluate = FasterCOCOeval.evaluate
    monkeypatch.setattr(FasterCOCOeval, 'evaluate', lambda self: runs.append(1) or evaluate(self))
    case = random_case(5)
    metric = METRICS.build({'type': 'FastCocoMetric', 'ann_file': write(case, tmp_path), 'backend': backend})
    [line] = log
    assert line.startswith(f'FastCocoMetric: boxes are evaluated by {expected}')
    for _ in range(2):
        assert not [line for line in outcome_of(metric, case, log, capsys).log if 'FastCocoMetric' in line]
    assert len(runs) == (2 if expected == FASTER else 0)


@with_faster
def test_several_processes_asked_for_change_nothing(
    tmp_path: Path, log: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """``use_mp_eval`` has mmdet take another evaluator, whose place ours takes too."""
    case = random_case(5)
    file = write(case, tmp_path)
    parent = outcome_of(CocoMetric(file), case, log, capsys)
    monkeypatch.setattr(coco_metric.COCOevalMP, 'evaluate', None)
    assert_equal_outcomes(parent, outcome_of(FastCocoMetric(file, use_mp_eval=True), case, log, capsys))


@with_faster
def test_mmdet_itself_stays_as_it_is(tmp_path: Path, log: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    before = CocoMetric.compute_metrics, dict(vars(coco_metric))
    case = random_case(5)
    outcome_of(FastCocoMetric(write(case, tmp_path), backend=FASTER), case, log, capsys)
    assert (CocoMetric.compute_metrics, dict(vars(coco_metric))) == before
    assert coco_metric.COCOeval is pycocotools.cocoeval.COCOeval
    with pytest.raises(KeyError), boxes_evaluated_by(FasterCOCOeval):  # noqa: PT012  the block is what fails
        assert dict(vars(coco_metric)) != before[1]
        raise KeyError
    assert dict(vars(coco_metric)) == before[1]


def test_an_unknown_back_end_is_refused() -> None:
    with pytest.raises(InputError, match="backend must be 'auto', 'faster-coco-eval' or 'pycocotools', got 'fast'"):
        FastCocoMetric(backend='fast')


@pytest.mark.parametrize('key', ['bbox', 'area', 'iscrowd'])
def test_annotations_that_evaluation_cannot_do_without(key: str, tmp_path: Path) -> None:
    """The parent ends in a KeyError after the first epoch."""
    case = make_case([(1, 1, SQUARE), (1, 1, SQUARE)], [])
    del case.truth['annotations'][1][key]
    file = write(case, tmp_path)
    CocoMetric(file)
    with pytest.raises(InputError, match=f"1 annotations of .*truth.json lack '{key}', the first with id 2"):
        FastCocoMetric(file)
