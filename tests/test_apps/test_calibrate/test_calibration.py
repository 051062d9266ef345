"""Thresholds and calibration: against hand-computed cases, brute force, pycocotools and the model that applies them."""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from typing import Any

import numpy as np
import pytest
import torch
from helpers import random_batch, small_detector
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from tolerances import about, within

from mmdet_iouquery.apps.calibrate.calibration import (
    NEITHER,
    RIGHT,
    SLOPE,
    WRONG,
    Calibration,
    Judged,
    best_cut,
    fit_calibration,
    held_out,
    joined,
    judge,
)
from mmdet_iouquery.core.calibration import piecewise_linear
from mmdet_iouquery.evaluation.selection_quality import Objects, calibration_error
from mmdet_iouquery.models.dense_heads.prediction_settings import PredictionSettings

CLASSES = 3
NOTHING = Objects(np.zeros((0, 4)), np.zeros(0, int))
JudgedImage = tuple[np.ndarray, np.ndarray, np.ndarray, Objects, Objects]


def objects(boxes: list[list[float]], labels: list[int]) -> Objects:
    return Objects(np.array(boxes, dtype=float).reshape(-1, 4), np.array(labels, dtype=int))


def judged(scores: list[float], right: list[int], num_objects: int) -> Judged:
    count = len(scores)
    return Judged(
        np.array(scores), np.zeros(count, int), np.array(right, bool), np.arange(count), np.array([num_objects])
    )


def random_images(seed: int, count: int = 30) -> list[JudgedImage]:
    """Boxes, scores, labels, objects and crowds; half of the detections lie near an object, some scores are equal."""
    rng = np.random.default_rng(seed)
    images = []
    for _ in range(count):
        corners = rng.uniform(0, 80, (8, 2))
        truth = np.concatenate([corners, corners + rng.uniform(10, 40, (8, 2))], 1)
        labels = rng.integers(CLASSES, size=8)
        near = rng.integers(8, size=20)
        boxes = np.concatenate([truth[near] + rng.normal(0, 3, (20, 4)), rng.uniform(0, 50, (15, 4))])
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 5)
        predicted = np.concatenate([np.where(rng.random(20) < 0.8, labels[near], 0), rng.integers(CLASSES, size=15)])
        scores = rng.random(35).astype(np.float32).round(2).astype(float)
        images.append((boxes, scores, predicted, Objects(truth[:6], labels[:6]), Objects(truth[6:], labels[6:])))
    return images


def judged_set(images: list[JudgedImage], iou: float = 0.5) -> Judged:
    rows = ((s, lab, judge(b, s, lab, truth, crowd, iou), truth.labels) for b, s, lab, truth, crowd in images)
    return joined(rows, CLASSES)


def coco_eval(judged_images: list[JudgedImage], scores: list[np.ndarray] | None = None) -> COCOeval:
    """pycocotools' evaluation, all areas and 100 detections a class."""
    images, annotations, results = [], [], []
    for i, (boxes, own, labels, truth, crowd) in enumerate(judged_images):
        images.append(dict(id=i + 1, width=150, height=150))
        for objects, iscrowd in ((truth, 0), (crowd, 1)):
            for box, label in zip(objects.boxes_px, objects.labels):
                annotations.append(dict(entry(box, label, i), id=len(annotations) + 1, iscrowd=iscrowd))
        for box, score, label in zip(boxes, own if scores is None else scores[i], labels):
            results.append(dict(entry(box, label, i), score=float(score)))
    coco = COCO()
    with redirect_stdout(io.StringIO()):
        coco.dataset = dict(images=images, annotations=annotations, categories=[dict(id=c) for c in range(CLASSES)])
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), 'bbox')
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def entry(box: np.ndarray, label: int, image: int) -> dict[str, Any]:
    size = box[2:] - box[:2]
    return dict(image_id=image + 1, category_id=int(label), bbox=[*box[:2], *size], area=float(size.prod()))


def test_matching_by_hand() -> None:
    """The surer of two takes the object, another class gets none, a crowd excuses as many as there are."""
    truth, crowd = objects([[0, 0, 10, 10], [20, 0, 30, 10]], [0, 1]), objects([[50, 50, 90, 90]], [0])
    boxes = [[0, 0, 10, 10], [0, 0, 10, 9], [20, 0, 30, 10], [20, 0, 30, 4], [50, 50, 60, 60], [60, 60, 70, 70]]
    labels = np.array([0, 0, 0, 1, 0, 0])
    scores = np.array([0.5, 0.9, 0.8, 0.7, 0.6, 0.4])
    verdicts = judge(np.array(boxes, dtype=float), scores, labels, truth, crowd)
    assert verdicts.tolist() == [WRONG, RIGHT, WRONG, WRONG, NEITHER, NEITHER]
    lenient = judge(np.array(boxes, dtype=float), scores, labels, truth, crowd, iou=0.4)
    assert lenient.tolist() == [WRONG, RIGHT, WRONG, RIGHT, NEITHER, NEITHER]
    assert judge(np.array(boxes, dtype=float), scores, labels, NOTHING, NOTHING).tolist() == [WRONG] * 6


@pytest.mark.parametrize('iou', [0.5, 0.75])
def test_matching_is_that_of_pycocotools(iou: float) -> None:
    images = random_images(seed=1)
    column = round((iou - 0.5) / 0.05)
    theirs: dict[tuple[int, int], list[tuple[float, int]]] = {}
    evaluation = coco_eval(images)
    for entry in evaluation.evalImgs:
        if entry is None or entry['aRng'] != evaluation.params.areaRng[0]:
            continue
        matched, passed_over = entry['dtMatches'][column] > 0, entry['dtIgnore'][column] > 0
        verdicts = np.where(passed_over, NEITHER, np.where(matched, RIGHT, WRONG))
        theirs[entry['image_id'] - 1, entry['category_id']] = sorted(zip(entry['dtScores'], verdicts.tolist()))
    for i, (boxes, scores, labels, truth, crowd) in enumerate(images):
        verdicts = judge(boxes, scores, labels, truth, crowd, iou)
        for label in range(CLASSES):
            ours = sorted(zip(scores[labels == label].tolist(), verdicts[labels == label].tolist()))
            assert ours == theirs.get((i, label), []), (i, label)


def test_best_f1_by_hand() -> None:
    """3 objects. Above 0.6 two of two are right (F1 4/5), above 0.3 three of four (6/7), all: three of five (3/4)."""
    cut = best_cut(judged([0.9, 0.8, 0.4, 0.5, 0.2], [1, 1, 1, 0, 0], 3))
    assert cut is not None and cut == (0.3, 3 / 4, 1.0, 6 / 7)


def test_of_equal_f1_the_highest_threshold() -> None:
    """2 objects. Both the first detection alone (F1 2/3) and all four (4/6) do; the first alone wins."""
    cut = best_cut(judged([0.9, 0.6, 0.5, 0.3], [1, 0, 0, 1], 2))
    assert cut is not None and cut.f1 == 2 / 3 and 0.6 <= cut.threshold < 0.9


def test_equal_scores_are_kept_together() -> None:
    """Between the right and the wrong one of 0.5 no threshold can pass."""
    cut = best_cut(judged([0.5, 0.5, 0.1], [1, 0, 0], 1))
    assert cut is not None and cut.precision == 0.5 and 0.1 <= cut.threshold < 0.5


def test_a_threshold_between_neighbours_of_single_precision() -> None:
    low = np.float32(0.7)
    high = np.nextafter(low, np.float32(1))
    cut = best_cut(judged([float(high), float(low)], [1, 0], 1))
    assert cut is not None and not low > np.float32(cut.threshold) and high > np.float32(cut.threshold)


def test_nothing_right_has_no_best_threshold() -> None:
    assert best_cut(judged([0.5, 0.4], [0, 0], 3)) is None
    assert best_cut(judged([], [], 3)) is None


@pytest.mark.parametrize('seed', range(3))
def test_thresholds_are_those_of_a_brute_force_search(seed: int) -> None:
    """Every threshold is tried, with a matching of its own; none is better, and no higher one is as good."""
    images = random_images(seed, count=8)
    everything = judged_set(images)
    for classes in ([0], [1], [2], [0, 1, 2]):
        of_classes = everything if len(classes) > 1 else everything.of_class(classes[0])
        candidates = np.unique([0.0, *of_classes.scores])[:-1]
        f1 = {}
        for threshold in candidates.tolist():
            kept, right, total = 0, 0, 0
            for boxes, scores, labels, truth, crowd in images:
                rows = (scores > threshold) & np.isin(labels, classes)
                verdicts = judge(boxes[rows], scores[rows], labels[rows], truth, crowd)
                kept, right = kept + (verdicts != NEITHER).sum(), right + (verdicts == RIGHT).sum()
                total += np.isin(truth.labels, classes).sum()
            f1[threshold] = 2 * right / (kept + total)
        cut = best_cut(of_classes)
        assert cut is not None and cut.f1 == max(f1.values())
        reached = max(threshold for threshold, value in f1.items() if value == cut.f1)
        following = min((t for t in candidates if t > reached), default=1.0)
        assert reached <= cut.threshold < following


def test_isotonic_regression_by_hand() -> None:
    """0.2 (right) before 0.4 (wrong) is pooled to a block of precision 1/2 from 0.2 to 0.4; 0.8 is right."""
    fit = fit_calibration(np.array([0.8, 0.1, 0.2, 0.4, 0.1]), np.array([1, 0, 1, 0, 0], bool))
    assert fit.scores == [0, 0.1, 0.2, 0.4, 0.8, 1]
    exact = [0, SLOPE * 0.1, 0.5 - SLOPE * 0.3, 0.5 - SLOPE * 0.1, 1 - SLOPE * 0.2, 1]
    assert fit.precision == about(exact, torch.float64)


def test_perfect_calibration_is_the_identity() -> None:
    scores = np.repeat([0.1, 0.25, 0.5, 0.75, 0.9], 20)
    right = np.concatenate([np.arange(20) < round(20 * p) for p in (0.1, 0.25, 0.5, 0.75, 0.9)])
    fit = fit_calibration(scores, right)
    anywhere = np.linspace(0, 1, 1001)
    np.testing.assert_allclose(fit(anywhere), anywhere, **within(torch.float64))


def test_nothing_to_fit_is_the_identity() -> None:
    assert fit_calibration(np.zeros(0), np.zeros(0, bool)) == Calibration([0.0, 1.0], [0.0, 1.0])


@pytest.mark.parametrize('case', ['overconfident', 'all right', 'all wrong', 'ends'])
def test_calibration_lessens_the_error_and_rises_strictly(case: str) -> None:
    rng = np.random.default_rng(2)
    scores = rng.random(5000) ** 3
    chance = {'overconfident': scores**2, 'all right': 1, 'all wrong': 0, 'ends': scores > 0.5}[case]
    right = rng.random(5000) < chance
    if case == 'ends':
        scores = scores.round(1)
    fit = fit_calibration(scores, right)
    assert [fit.scores[0], fit.scores[-1]] == [0, 1] and fit.precision[0] >= 0 and fit.precision[-1] <= 1
    assert (np.diff(fit.scores) > 0).all() and (np.diff(fit.precision) > 0).all()
    PredictionSettings.from_cfg({'calibration': fit._asdict()}, 5)
    before, after = calibration_error(scores, right), calibration_error(fit(scores), right)
    assert after < 0.5 * before and after < 0.01
    halves = Judged(scores, np.zeros(5000, int), right, np.arange(5000), np.array([1]))
    assert after <= calibration_error(held_out(halves), right) < before


def test_held_out_scores_come_from_the_other_half() -> None:
    """Images 0 and 2 have one right detection of 0.5 each, 1 and 3 a wrong one: the halves learn the opposite."""
    given = judged([0.5, 0.5, 0.5, 0.5], [1, 0, 1, 0], 2)
    # a calibration rises by its slope wherever it is flat
    np.testing.assert_allclose(held_out(given), [0, 1, 0, 1], atol=2 * SLOPE)


def test_scores_that_are_neighbours_stay_apart() -> None:
    """In single precision a slow rise would make them equal, and equal scores are ranked otherwise."""
    fit = fit_calibration(np.array([0.2, 0.5, 0.9]), np.array([1, 1, 1], bool))
    for start in (1e-3, 0.2, 0.5, 0.899, 0.97):
        numbers = np.float32(start).view(np.int32) + np.arange(2000, dtype=np.int32)
        scores = torch.from_numpy(numbers.view(np.float32))
        calibrated = piecewise_linear(scores, *fit)
        assert (calibrated.diff() > 0).all()
        np.testing.assert_allclose(calibrated.numpy(), fit(scores.double().numpy()), **within('doubles'))


@pytest.mark.parametrize('seed', range(3))
def test_ap_is_the_same_to_the_last_digit(seed: int) -> None:
    images = random_images(seed)
    everything = judged_set(images)
    fit = fit_calibration(everything.scores, everything.right)
    assert np.abs(fit(everything.scores) - everything.scores).max() > 0.05
    calibrated = [piecewise_linear(torch.from_numpy(scores).float(), *fit).numpy() for _, scores, *_ in images]
    before, after = coco_eval(images), coco_eval(images, calibrated)
    assert before.stats[0] > 0.05 and before.stats.tolist() == after.stats.tolist()
    assert np.array_equal(before.eval['precision'], after.eval['precision'])


def test_the_model_applies_the_calibration_last() -> None:
    """The same detections, cut at their own scores, with the precision in place of the score; without it, bit-equal."""
    fit = Calibration([0.0, 0.3, 1.0], [0.0, 0.6, 0.7])
    images, samples = random_batch([0], 128, 128)
    model = small_detector().eval()
    results = []
    with torch.no_grad():
        x = model.extract_feat(images)
        plain = model.bbox_head.predict(x, samples)[0]
        middle = plain.scores.median().item()
        for cfg in ({'calibration': None}, {'score_thr': middle}, {'score_thr': middle, 'calibration': fit._asdict()}):
            model.bbox_head.prediction_settings = PredictionSettings.from_cfg(cfg, 5)
            results += model.bbox_head.predict(x, samples)
    assert torch.equal(results[0].scores, plain.scores) and results[0].scores.dtype == plain.scores.dtype
    assert 0 < len(results[1]) < len(plain) and torch.equal(results[1].bboxes, results[2].bboxes)
    np.testing.assert_allclose(results[2].scores.numpy(), fit(results[1].scores.double().numpy()), **within('doubles'))
    assert not np.allclose(results[2].scores.numpy(), results[1].scores.numpy())


@pytest.mark.parametrize(
    ('calibration', 'message'),
    [
        ({'scores': [0, 1]}, r'must be dict\(scores=.*precision='),
        ('isotonic', 'test_cfg.calibration must be a dict'),
        ({'scores': [0, 1], 'precision': [0, 1], 'more': 1}, r'must be dict\(scores'),
        ({'scores': [0, 0.5, 1], 'precision': [0, 1]}, 'a value for each'),
        ({'scores': [0, 0.5], 'precision': [0, 1]}, 'rise strictly from 0 to 1'),
        ({'scores': [], 'precision': []}, 'rise strictly from 0 to 1'),
        ({'scores': [0, 0.5, 0.5, 1], 'precision': [0, 0.2, 0.3, 1]}, 'rise strictly'),
        ({'scores': [0, 0.5, 1], 'precision': [0, 0.5, 0.4]}, 'precision strictly'),
        ({'scores': [0, 1], 'precision': [0, 1.5]}, r'precision\[1\] must lie in \[0, 1\]'),
        ({'scores': [0, float('nan'), 1], 'precision': [0, 0.5, 1]}, r'scores\[1\] must lie in'),
    ],
)
def test_wrong_calibration(calibration: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PredictionSettings.from_cfg({'calibration': calibration}, 5)
