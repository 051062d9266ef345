"""An exported detector, run by the runtime, detects what the detector itself does behind its test pipeline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from exported_files import write_openvino
from helpers import RTDETR, small_detector
from image_files import PLAIN, RGB, encoded, random_image, turned
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.structures import InstanceData
from PIL import Image
from pipelines import built

from iouquery_runtime import Detector, Result
from mmdet_iouquery import config_path
from mmdet_iouquery.deploy import ExportSettings, ModelSource, export_onnx
from mmdet_iouquery.models.dense_heads.prediction_settings import PredictionSettings

SIZE, NAMES = (128, 160), ('cat', 'dog', 'car', 'bus', 'cup')
KINDS = (
    'jpeg',
    'progressive jpeg',
    'grey jpeg',
    'cmyk jpeg, adobe',
    'cmyk tiff',
    'grey png',
    'bilevel png',
    'palette png, transparent',
    'png with alpha',
    'grey png with alpha',
    'animated gif',
    'webp with alpha',
    'palette bmp',
    'packed tiff',
    'ppm',
    'one pixel',
)
IMAGES = {
    'large': encoded(random_image(640, 427, seed=1, blur=20), 'PNG'),
    'tall': encoded(random_image(50, 333, seed=2), 'JPEG'),
    'turned': turned(RGB, 6),
    'turned over': turned(random_image(seed=3), 4, 'PNG'),
    **{kind: PLAIN[kind] for kind in KINDS},
}
TEST_CFGS: dict[str, dict[str, Any]] = {
    'none': {},
    'all': {'score_thr': 0.05, 'overlap_thr': 0.4, 'calibration': {'scores': [0, 0.3, 1], 'precision': [0, 0.6, 0.9]}},
}


@pytest.fixture(scope='module')
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp('images')
    for name, data in IMAGES.items():
        (folder / name).write_bytes(data)
    assert len(IMAGES) == 20
    return [folder / name for name in IMAGES]


@pytest.fixture(scope='module')
def model() -> Any:
    """An RT-DETR-R18 whose heads tell classes and tokens apart, as those of a trained one do."""
    torch.manual_seed(0)
    model = small_detector(RTDETR).eval()
    with torch.no_grad():
        for name, weight in model.bbox_head.named_parameters():
            if 'cls_head' in name and weight.dim() == 2:
                weight.normal_(std=0.3)
    return model


@pytest.fixture(scope='module')
def exported(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp('exported') / 'model.onnx'
    return export_onnx(model, path, ExportSettings(size=SIZE, verify=False), ModelSource(names=NAMES)).path


@pytest.fixture(scope='module', params=TEST_CFGS)
def case(
    request: pytest.FixtureRequest, model: Any, exported: Path, images: list[Path]
) -> tuple[Path, list[InstanceData]]:
    """A file with a ``test_cfg``, and what the detector with it detects behind the test pipeline of its config."""
    test_cfg = TEST_CFGS[request.param]
    proto, path = onnx.load(exported), exported.with_name(f'{request.param}.onnx')
    values = {entry.key: entry.value for entry in proto.metadata_props}
    settings = {key: test_cfg.get(key) for key in ('score_thr', 'overlap_thr', 'calibration')}
    onnx.helper.set_model_props(proto, {**values, 'test_cfg': json.dumps(settings)})
    onnx.save(proto, path)
    steps = Config.fromfile(config_path(RTDETR)).test_dataloader.dataset.pipeline
    for step in steps:
        if step.type == 'Resize':
            step.scale = SIZE[::-1]
    transforms = built([step for step in steps if step.type != 'LoadAnnotations'])
    model.bbox_head.prediction_settings = PredictionSettings.from_cfg(test_cfg, len(NAMES))
    expected = []
    for image in images:
        packed = transforms({'img_path': str(image), 'img_id': 1, 'instances': []})
        with torch.no_grad():
            (sample,) = model.test_step(pseudo_collate([packed]))
        expected.append(sample.pred_instances)
    return path, expected


def share_equal(result: Result, expected: InstanceData) -> float:
    """Of the detections of both, how many have a partner with the same label, score and box, each used once."""
    boxes, scores, labels = (getattr(expected, name).numpy() for name in ('bboxes', 'scores', 'labels'))
    partners = (
        (result.labels[:, None] == labels)
        & (np.abs(result.scores[:, None] - scores) < 1e-5)
        & (np.abs(result.boxes[:, None] - boxes).max(-1) < 0.01)
    )
    matched = 0
    for row in partners:
        free = np.flatnonzero(row)
        if free.size:
            partners[:, free[0]] = False
            matched += 1
    return matched / max(len(result), len(labels))


@pytest.mark.parametrize('suffix', ['.onnx', '.xml'])
def test_detections_are_the_detectors_behind_its_test_pipeline(
    suffix: str, case: tuple[Path, list[InstanceData]], images: list[Path]
) -> None:
    """Of 20 images of every kind. Two queries with nearly equal scores may change places at the selection's border."""
    path, expected = case
    if suffix == '.xml':
        write_openvino(path, path.with_suffix('.xml'))
    detector = Detector(path.with_suffix(suffix), threads=1)
    results = detector(images, batch_size=3)
    equal = {name: share_equal(*pair) for name, pair in zip(IMAGES, zip(results, expected))}
    assert all(len(result) > 3 for result in results) and np.mean([*equal.values()]) >= 0.99, equal
    swapped = detector(np.asarray(Image.open(images[0])), bgr=True)
    assert share_equal(swapped, expected[0]) < 0.5, 'other pixels would not have been noticed'
    assert results[0].names[0] == NAMES[int(expected[0].labels[0])]
