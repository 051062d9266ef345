"""How good the selected queries are, as a metric that is logged with AP during training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmdet.registry import METRICS
from mmdet.structures.bbox import get_box_tensor
from mmengine.evaluator import BaseMetric

from .selection_quality import THRESHOLD, Objects, SelectedQueries, compare_with_objects, selection_quality


@METRICS.register_module()
class QuerySelectionMetric(BaseMetric):
    """Class score against IoU of the queries that a selector takes (RT-DETR, table 4).

    Needs ``test_cfg=dict(keep_selected=True)`` in the model, and ground truth in the data samples in px of the
    image as it came: ``LoadAnnotations`` after ``Resize`` in the pipeline, as in mmdet's test pipelines. Crowds and
    ignored boxes are no objects. Logs, under ``selection/``: ``prop_score`` and ``prop_both`` in percent (the
    paper's Prop_cls and Prop_both), ``spearman`` in [-1, 1], ``calibration_error`` and ``right_class`` in [0, 1],
    and ``both_above``, the number of queries of score and IoU above the threshold; see
    :class:`~mmdet_iouquery.evaluation.selection_quality.SelectionQuality`. A value that does not exist is left out, as
    all are where predictions are read from a file, into which mmdet writes no ground truth.

    Args:
        threshold: of score and IoU, in [0, 1).

    Raises:
        ValueError: a threshold out of range; in a run, a model that does not tell of its queries.
    """

    default_prefix = 'selection'

    def __init__(
        self, threshold: float = THRESHOLD, collect_device: str = 'cpu', prefix: str | None = None, **others: Any
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix, **others)
        if not 0 <= threshold < 1:
            raise ValueError(f'QuerySelectionMetric: threshold must lie in [0, 1), got {threshold}')
        self.threshold = threshold

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Compare each image's selected queries with its objects."""
        for sample in data_samples:
            if 'selected_queries' not in sample:
                raise ValueError(
                    'QuerySelectionMetric: the model does not tell of its selected queries; set '
                    'model.test_cfg.keep_selected=True, and name a query_selector that selects among encoder tokens '
                    '(learned queries have no scores)'
                )
            if 'gt_instances' not in sample:
                if data_batch is None:  # predictions from a file, without ground truth: there is nothing to compare
                    continue
                raise ValueError(
                    'QuerySelectionMetric: the data samples hold no ground truth; put LoadAnnotations after Resize '
                    'into the pipeline'
                )
            selected, truth = sample['selected_queries'], sample['gt_instances']
            objects = Objects(
                np.asarray(get_box_tensor(truth['bboxes']).cpu(), dtype=float), np.asarray(truth['labels'].cpu())
            )
            labels = selected['labels'].cpu().numpy() if 'labels' in selected else None
            boxes, scores = selected['bboxes'].cpu().double().numpy(), selected['scores'].cpu().double().numpy()
            self.results.append(compare_with_objects(boxes, scores, labels, objects))

    def compute_metrics(self, results: list[SelectedQueries]) -> dict[str, float]:
        """The numbers over all images; none of predictions that were read from a file."""
        if not results:
            return {}
        queries = SelectedQueries.joined(SelectedQueries(*fields) for fields in results)  # collected as plain tuples
        quality = selection_quality(queries, self.threshold)._asdict()
        names = ('prop_score', 'prop_both', 'spearman', 'calibration_error', 'right_class', 'both_above')
        return {name: float(quality[name]) for name in names if quality[name] is not None}
