"""Boxes that a training leaves out for their size are counted before it starts, as its pipeline will leave them out."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import shipped_config
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.dataset import Compose

from mmdet_iouquery.datasets.coco.checks import check_config
from mmdet_iouquery.engine.launch import report_dataset

ATTO = 'deimv2/deimv2_hgnetv2-atto_8xb16-500e_coco.py'
RTDETR = 'rtdetr/rtdetr_r18vd_8xb2-72e_coco.py'
CLASSES = ('a',)


def written(folder: Path, sizes: list[tuple[int, int]], boxes: list[list[Any]]) -> Path:
    """A set of images (width, height) with boxes [x, y, width, height] each."""
    for number in range(len(sizes)):
        (folder / f'{number}.jpg').touch()
    images = [dict(id=i, file_name=f'{i}.jpg', width=w, height=h) for i, (w, h) in enumerate(sizes)]
    rows = [(i, box) for i, of_image in enumerate(boxes) for box in of_image]
    annotations = [
        dict(id=k, image_id=i, category_id=1, bbox=box, area=box[2] * box[3], iscrowd=0)
        for k, (i, box) in enumerate(rows, start=1)
    ]
    path = folder / 'ann.json'
    path.write_text(json.dumps(dict(images=images, annotations=annotations, categories=[dict(id=1, name='a')])))
    return path


def dataset(ann_file: Path, pipeline: list[Any], **others: Any) -> dict[str, Any]:
    prefix = dict(img=str(ann_file.parent))
    settings = dict(type='CocoDataset', ann_file=str(ann_file), data_prefix=prefix, metainfo=dict(classes=CLASSES))
    return {**settings, 'pipeline': pipeline, **others}


def said_of(ann_file: Path, pipeline: list[Any]) -> list[str]:
    return [*check_config(dict(train_dataloader=dict(dataset=dataset(ann_file, pipeline))))[0].warnings]


def at_least(width: float, height: float) -> dict[str, Any]:
    return dict(type='FilterAnnotations', min_gt_bbox_wh=(width, height), keep_empty=False)


RESIZE = dict(type='Resize', scale=(96, 96), keep_ratio=False)
# 48 x 24 becomes 96 x 96: sides twice and four times as large
BOXES = [[[0, 0, 8, 20], [4, 4, 9, 9], [20, 2, 20, 20]], [[0, 0, 48, 24]], [[1, 1, 7, 3], [44, 0, 30, 20]]]
SIZES = [(48, 24)] * 3


@pytest.mark.parametrize(
    ('pipeline', 'warning'),
    [
        ([at_least(8, 8)], '3 of 6 boxes, in 2 images, are .* up to 8 px in the image as it is read.*0.min_gt_bbox_wh'),
        # of the last box 4 px are in the image, which become 8
        ([RESIZE, at_least(7, 7)], None),
        ([RESIZE, at_least(14, 14)], r'2 of 6 boxes, in 1 images, .* .a width or height up to 14 px .* 96 x 96\)'),
        ([RESIZE, at_least(16, 12)], r'3 of 6 boxes, in 2 images, .* \(a width up to 16 px or a height up to 12 px in'),
        (
            [at_least(5, 3), RESIZE, dict(type='RandomFlip'), at_least(16, 1)],
            r'3 of 6 .* up to 3 px .* as it is read, or .* limit is \S+\.0\.min_gt_bbox_wh and \S+\.3\.min_gt_bbox_wh$',
        ),
        ([dict(type='RandomChoiceResize', scales=[(9, 9)]), at_least(90, 90)], None),
        ([dict(type='RandomChoice', transforms=[[RESIZE]]), at_least(90, 90)], None),
        ([dict(type='FilterAnnotations', by_box=False, by_mask=True, min_gt_bbox_wh=(90, 90))], None),
    ],
)
def test_counts_by_hand(tmp_path: Path, pipeline: list[Any], warning: str | None) -> None:
    warnings = said_of(written(tmp_path, SIZES, BOXES), pipeline)
    small = [text for text in warnings if 'too small' in text]
    assert len(small) == (warning is not None) and (warning is None or re.match(warning, small[0])), warnings


def test_it_is_what_the_pipeline_leaves_out(tmp_path: Path) -> None:
    """mmdet's own transforms on the same boxes; sides are halves of px, so that many are at the limit."""
    rng = np.random.default_rng(0)
    sizes = [(64, 48), (128, 64), (32, 96)] * 4
    boxes = []
    for width, height in sizes:
        low = rng.integers(0, (width - 8, height - 8), (20, 2))
        boxes.append(np.concatenate([low, np.minimum(rng.integers(2, 40, (20, 2)) / 2, (width, height) - low)], 1))
    steps = [at_least(3, 2), RESIZE, at_least(12, 12)]
    pipeline, dropped, images = Compose(steps), 0, 0
    for (width, height), of_image in zip(sizes, boxes):
        corners = torch.tensor(np.concatenate([of_image[:, :2], of_image[:, :2] + of_image[:, 2:]], 1)).float()
        image = np.zeros((height, width, 3), np.uint8)
        left = pipeline(dict(img=image, img_shape=(height, width), gt_bboxes=HorizontalBoxes(corners)))
        lost = len(of_image) - len(left['gt_bboxes'])
        dropped, images = dropped + lost, images + bool(lost)
    texts = said_of(written(tmp_path, sizes, [box.tolist() for box in boxes]), steps)
    assert 20 < dropped < 200 and any(text.startswith(f'{dropped} of 240 boxes, in {images} images') for text in texts)


def test_only_what_is_trained_on_counts(tmp_path: Path) -> None:
    """Not of images that are left out, not crowds, and not of a set for validation."""
    ann_file = written(tmp_path, SIZES, BOXES)
    content = json.loads(ann_file.read_text())
    content['annotations'][0]['iscrowd'] = 1
    ann_file.write_text(json.dumps(content))

    def counts(split: str, **settings: Any) -> list[str]:
        of_part = {f'{split}_dataloader': dict(dataset=dataset(ann_file, [at_least(8, 8)], **settings))}
        return [text[:25] for text in check_config(of_part)[0].warnings if 'too small' in text]

    assert counts('train') == ['2 of 5 boxes, in 1 images'] and counts('train', indices=[1, 2]) == [
        '2 of 3 boxes, in 1 images'
    ]
    assert counts('train', indices=[0, 1]) == counts('val', test_mode=True) == []


@pytest.mark.parametrize(
    ('name', 'expected'),
    [(ATTO, '3 of 6 boxes, in 2 images'), (RTDETR, None)],
)
def test_shipped_configs_say_it_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, expected: str | None
) -> None:
    """Atto's limit of 12 px is in the pipeline of what wraps its set; the line names the entries that set it."""
    boxes = [[[5, 5, 20, 200], [5, 5, 24, 24], [5, 5, 25, 25]], [[0, 0, 300, 300]], [[9, 9, 12, 99], [9, 9, 50, 50]]]
    cfg = shipped_config(name)
    leaf = cfg.train_dataloader.dataset
    leaf = leaf.get('dataset', leaf)
    settings = dataset(written(tmp_path, [(640, 640)] * 3, boxes), leaf.pipeline, data_root='')
    leaf.update(settings)
    cfg.model.bbox_head.num_classes = 1
    cfg.launcher, cfg.val_dataloader, cfg.val_evaluator, cfg.test_dataloader = 'none', None, None, None
    report_dataset(cfg, ('train',))
    notes = [line for line in capsys.readouterr().out.splitlines() if 'too small' in line]
    assert len(notes) == (expected is not None)
    if expected:
        assert notes[0].startswith(f'note: {expected}, are too small for the training')
        assert 'up to 12 px in the image as it is read or resized to 320 x 320)' in notes[0]
        keys = re.findall(r'train_dataloader\.dataset\.pipeline\.\d\.min_gt_bbox_wh', notes[0])
        assert len(keys) == 2
        for key in keys:
            cfg.merge_from_dict({key: (1, 1)})
        report_dataset(cfg, ('train',))
        assert 'too small' not in capsys.readouterr().out
