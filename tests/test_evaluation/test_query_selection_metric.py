"""The metric in mmdet's evaluator: its numbers, and what it says where it can't have any."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import random_batch, small_detector
from hosts import HOSTS, host_config
from mmdet.registry import METRICS, MODELS
from mmengine.config import Config
from tolerances import about
from torch import nn

from mmdet_iouquery.apps.analyze.trace import Objects, selected_queries, trace
from mmdet_iouquery.datasets import check_config
from mmdet_iouquery.errors import InputError
from mmdet_iouquery.evaluation import QuerySelectionMetric
from mmdet_iouquery.evaluation.selection_quality import SelectedQueries, selection_quality

SIZE = (96, 128)


def models() -> dict[str, nn.Module]:
    dino = host_config('DINO')
    dino.update(type=HOSTS['DINO'].adapter, query_selector={'type': 'IoUAwareQuerySelector'})
    dino.test_cfg.keep_selected = True
    by_name = {'RT-DETR': small_detector(test_cfg={'keep_selected': True}), 'DINO': MODELS.build(dino)}
    for model in by_name.values():
        model.init_weights()
        for module in model.modules():  # boxes of many sizes
            if isinstance(module, nn.Linear) and module.out_features == 4:
                nn.init.normal_(module.weight, std=0.2)
    return by_name


@pytest.mark.parametrize('name', ['RT-DETR', 'DINO'])
def test_the_numbers_are_those_of_the_traced_queries(name: str) -> None:
    """Predicting with a padded, rescaled image and tracing it tell the same story."""
    model = models()[name].eval()
    images, samples = random_batch([3, 2], *SIZE, num_classes=5)
    metric = METRICS.build({'type': 'QuerySelectionMetric', 'threshold': 1e-4})
    expected = []
    for image, sample in zip(images, samples):
        height, width = 80, 112  # of the image in the input
        sample.set_metainfo({'img_shape': (height, width), 'ori_shape': (160, 280), 'scale_factor': (0.4, 0.5)})
        pixels = (255 * image[:, :height, :width]).byte()
        sample.gt_instances.bboxes[0] = torch.tensor([0.0, 0.0, 280.0, 160.0])  # over every query
        truth = Objects(sample.gt_instances.bboxes.numpy().astype(float), sample.gt_instances.labels.numpy())
        data = {'inputs': pixels, 'data_samples': sample.clone()}
        expected.append(selected_queries(trace(model, data, truth)))
        batch = model.data_preprocessor({'inputs': [pixels], 'data_samples': [sample]}, False)
        with torch.no_grad():
            predicted = model.predict(batch['inputs'], batch['data_samples'])
        metric.process(None, [data_sample.to_dict() for data_sample in predicted])
    quality = selection_quality(SelectedQueries.joined(expected), 1e-4)
    metrics = metric.evaluate(size=2)
    assert metrics['selection/both_above'] == quality.both_above > 0
    for key in ('prop_score', 'prop_both', 'spearman', 'calibration_error', 'right_class'):
        assert metrics[f'selection/{key}'] == about(getattr(quality, key), 'sum'), key
    assert quality.queries == sum(len(queries.scores) for queries in expected)


def sample_with(**changes: Any) -> dict[str, Any]:
    selected = {'bboxes': torch.tensor([[0.0, 0, 10, 10]]), 'scores': torch.tensor([0.9]), 'labels': torch.tensor([1])}
    truth = {'bboxes': torch.tensor([[0.0, 0, 10, 8]]), 'labels': torch.tensor([1])}
    return {
        key: value for key, value in {'selected_queries': selected, 'gt_instances': truth, **changes}.items() if value
    }


def test_by_hand_and_with_what_does_not_exist_left_out() -> None:
    metric = QuerySelectionMetric()
    metric.process(None, [sample_with()])
    actual = metric.evaluate(size=1)
    assert 'selection/spearman' not in actual  # of one query
    assert actual['selection/prop_both'] == 100 and actual['selection/right_class'] == 1
    assert actual['selection/calibration_error'] == pytest.approx(0.1)


def test_what_is_missing_is_said() -> None:
    metric = QuerySelectionMetric()
    with pytest.raises(ValueError, match=r'set model\.test_cfg\.keep_selected=True'):
        metric.process(None, [sample_with(selected_queries=None)])
    with pytest.raises(ValueError, match='put LoadAnnotations after Resize'):
        metric.process({}, [sample_with(gt_instances=None)])
    with pytest.raises(ValueError, match='threshold must lie in'):
        QuerySelectionMetric(threshold=1.0)


def test_predictions_from_a_file_have_no_numbers_and_stop_no_other_metric() -> None:
    """mmdet writes no ground truth into it, and its evaluator reads it back without data."""
    metric = QuerySelectionMetric()
    metric.process(None, [sample_with(gt_instances=None)])
    assert metric.evaluate(size=1) == {}


def test_a_model_that_will_not_tell_is_refused_before_training() -> None:
    cfg = Config(
        {'val_evaluator': [{'type': 'CocoMetric'}, {'type': 'QuerySelectionMetric'}], 'model': {'type': 'SingleStage'}}
    )
    with pytest.raises(InputError, match=r'val_evaluator has a QuerySelectionMetric.*keep_selected'):
        check_config(cfg)
    cfg.model.test_cfg = {'keep_selected': True}
    assert check_config(cfg) == []


def test_nothing_is_kept_unless_asked_for() -> None:
    model = small_detector().eval()
    images, samples = random_batch([1], *SIZE)
    with torch.no_grad():
        (predicted,) = model.predict(images, samples)
    assert 'selected_queries' not in predicted
