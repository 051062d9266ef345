"""Category ids of any kind: what the head predicts is scored and written under the file's own ids and names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import small_detector
from image_files import encoded, random_image
from mmdet.datasets import CocoDataset
from mmdet.evaluation import CocoMetric
from mmdet.structures import SampleList
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from torch import Tensor, nn

from mmdet_iouquery import config_path
from mmdet_iouquery.datasets.coco.checks import check_coco
from mmdet_iouquery.errors import InputError
from mmdet_iouquery.structures import Memory, Predictions, Queries

SIZES = [(64, 48), (40, 64), (64, 64)]
CATEGORIES = {
    'gaps, shuffled': {900: 'ox', 3: 'cat', 17: 'dog'},
    'from 0': {0: 'cat', 1: 'dog', 2: 'ox'},
    'from 1': {1: 'cat', 2: 'dog', 3: 'ox'},
    'from 1, backwards': {3: 'cat', 2: 'dog', 1: 'ox'},
    'one class': {7: 'cat'},
    'one class, id 0': {0: 'cat'},
}


class Oracle(nn.Module):
    """A decoder whose queries find what the batch holds: the ground truth's boxes and labels, and nothing else."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.samples: SampleList = []

    def forward(self, queries: Queries, memory: Memory, mask: Any = None, num_layers: int | None = None) -> Predictions:
        batch, count, _ = queries.content.shape
        logits, boxes = torch.full((1, batch, count, self.num_classes), -9.0), torch.full((1, batch, count, 4), 0.5)
        for i, sample in enumerate(self.samples):
            truth = sample.gt_instances
            height, width = sample.ori_shape
            corners = truth.bboxes.tensor / torch.tensor([width, height] * 2)
            first_queries = range(len(truth))
            logits[0, i, first_queries, truth.labels] = 9.0
            boxes[0, i, first_queries] = (
                torch.cat([corners[:, :2] + corners[:, 2:], 2 * (corners[:, 2:] - corners[:, :2])], 1) / 2
            )
        return Predictions(logits, boxes)


def write_set(folder: Path, categories: dict[int, str]) -> Path:
    """Three images of different sizes, with two boxes of each category in turn."""
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for i, (width, height) in enumerate(SIZES):
        (folder / f'{i}.png').write_bytes(encoded(random_image(width, height, seed=i), 'PNG'))
        images.append(dict(id=100 - 10 * i, file_name=f'{i}.png', width=width, height=height))
        for category in list(categories) * 2:
            x, y = rng.uniform(0, 20, 2).round(2)
            w, h = rng.uniform(5, 18, 2).round(2)
            box = dict(bbox=[float(x), float(y), float(w), float(h)], area=float(w * h), iscrowd=0)
            annotations.append(dict(box, id=len(annotations) + 1, image_id=images[-1]['id'], category_id=category))
    listed = [dict(id=number, name=name) for number, name in categories.items()]
    (folder / 'ann.json').write_text(json.dumps(dict(images=images, annotations=annotations, categories=listed)))
    return folder / 'ann.json'


def evaluated(ann_file: Path, classes: tuple[str, ...], prefix: Path) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Metrics and written detections of a model whose decoder is the oracle, along the whole way of a test."""
    steps = Config.fromfile(config_path('rtdetr/rtdetr_r18vd_8xb2-72e_coco.py')).test_dataloader.dataset.pipeline
    next(step for step in steps if step['type'] == 'Resize')['scale'] = (64, 64)
    dataset = CocoDataset(
        ann_file=str(ann_file),
        data_prefix=dict(img=str(ann_file.parent)),
        metainfo=dict(classes=classes),
        test_mode=True,
        pipeline=steps,
    )
    model = small_detector(bbox_head__num_classes=len(classes)).eval()
    model.bbox_head.decoder = oracle = Oracle(len(classes))
    metric = CocoMetric(ann_file=str(ann_file), metric='bbox', classwise=True, outfile_prefix=str(prefix))
    metric.dataset_meta = dataset.metainfo
    for item in dataset:
        batch = pseudo_collate([item])
        oracle.samples = batch['data_samples']
        with torch.no_grad():
            metric.process(batch, [sample.to_dict() for sample in model.test_step(batch)])
    return metric.evaluate(len(dataset)), json.loads(Path(f'{prefix}.bbox.json').read_text())


def overlap(a: list[float], b: list[float]) -> float:
    """IoU of two boxes x, y, w, h."""
    common = [min(a[k] + a[k + 2], b[k] + b[k + 2]) - max(a[k], b[k]) for k in (0, 1)]
    inside = max(common[0], 0) * max(common[1], 0)
    return inside / (a[2] * a[3] + b[2] * b[3] - inside)


@pytest.mark.parametrize('kind', CATEGORIES)
def test_perfect_predictions_score_1_under_the_files_own_ids(kind: str, tmp_path: Path) -> None:
    categories = CATEGORIES[kind]
    ann_file = write_set(tmp_path, categories)
    classes = tuple(categories.values())
    assert tuple(check_coco(ann_file, tmp_path, classes).class_counts) == classes
    metrics, written = evaluated(ann_file, classes, tmp_path / 'found')
    assert metrics['coco/bbox_mAP'] == 1.0
    for name in classes:
        assert metrics[f'coco/{name}_precision'] == 1.0
    sure = [detection for detection in written if detection['score'] > 0.9]
    truth = json.loads(ann_file.read_text())['annotations']
    assert len(sure) == len(truth) and {detection['category_id'] for detection in written} == set(categories)
    for row in truth:
        same = [d for d in sure if (d['image_id'], d['category_id']) == (row['image_id'], row['category_id'])]
        assert max(overlap(d['bbox'], row['bbox']) for d in same) > 0.999


def test_a_class_list_in_another_order_would_give_wrong_names_and_is_refused(tmp_path: Path) -> None:
    """The score does not show it: labels and ids go by the file's order on both ways, the list's names by its own."""
    categories = CATEGORIES['gaps, shuffled']
    ann_file = write_set(tmp_path, categories)
    classes = ('cat', 'dog', 'ox')
    metrics, _ = evaluated(ann_file, classes, tmp_path / 'found')
    assert metrics['coco/bbox_mAP'] == 1.0
    dataset = CocoDataset(
        ann_file=str(ann_file), data_prefix=dict(img=''), metainfo=dict(classes=classes), test_mode=True, pipeline=[]
    )
    first = dataset[0]['instances'][0]['bbox_label']
    assert dataset.cat_ids[first] == 900 and dataset.metainfo['classes'][first] == 'cat'  # an ox shown as a cat
    with pytest.raises(InputError, match=r"write classes=\('ox', 'cat', 'dog'\)"):
        check_coco(ann_file, tmp_path, classes)


def test_annotation_id_0_costs_a_box_and_is_warned_of(tmp_path: Path) -> None:
    ann_file = write_set(tmp_path, CATEGORIES['one class'])
    content = json.loads(ann_file.read_text())
    content['annotations'][0]['id'] = 0
    ann_file.write_text(json.dumps(content))
    metrics, _ = evaluated(ann_file, ('cat',), tmp_path / 'found')
    assert metrics['coco/bbox_mAP'] < 0.9
    assert any('counts as missed' in warning for warning in check_coco(ann_file, tmp_path, ('cat',)).warnings)


def test_a_wrong_label_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The measure itself: with labels shifted by one, nothing is right."""
    plain = Oracle.forward

    def shifted(self: Oracle, *args: Any, **kwargs: Any) -> Predictions:
        logits, boxes, _ = plain(self, *args, **kwargs)
        return Predictions(Tensor.roll(logits, 1, -1), boxes)

    monkeypatch.setattr(Oracle, 'forward', shifted)
    ann_file = write_set(tmp_path, CATEGORIES['gaps, shuffled'])
    metrics, _ = evaluated(ann_file, ('ox', 'cat', 'dog'), tmp_path / 'found')
    assert metrics['coco/bbox_mAP'] < 0.5
