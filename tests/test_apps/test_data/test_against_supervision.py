"""Sets that supervision exports are read; and what both read, both read alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from form_sets import TURNED, boxes_of, truth_of, voc_xml, write_image, write_text, yolo_set
from tolerances import within

from mmdet_iouquery import read_data
from mmdet_iouquery.apps.data.folder import Folder
from mmdet_iouquery.apps.data.reading import Reading
from mmdet_iouquery.apps.data.voc import read_voc
from mmdet_iouquery.apps.data.yolo import read_yolo
from mmdet_iouquery.apps.quickstart.digits import build_digits

sv = pytest.importorskip('supervision')


@pytest.fixture(scope='module')
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp('data') / 'digits'
    return build_digits(root, num_train=6, num_val=3, image_size=96, progress=False)


def supervision_set(digits: Path, split: str) -> sv.DetectionDataset:
    ann_file = digits / 'annotations' / f'{split}.json'
    return sv.DetectionDataset.from_coco(images_directory_path=str(digits / split), annotations_path=str(ann_file))


@pytest.mark.parametrize(('form', 'tolerance'), [('yolo', 3e-3), ('voc', 1.0)])
def test_its_exports_of_the_digits(digits: Path, tmp_path: Path, form: str, tolerance: float) -> None:
    """YOLO has five decimals of 96 px there; VOC whole px."""
    root = tmp_path / 'set'
    for split in ('train', 'val'):
        data = supervision_set(digits, split)
        if form == 'yolo':
            data.as_yolo(str(root / split / 'images'), str(root / split / 'labels'), str(root / 'data.yaml'))
        else:
            data.as_pascal_voc(str(root / split / 'images'), str(root / split / 'annotations'))
    if form == 'yolo':  # of parts it writes nothing
        names = (root / 'data.yaml').read_text()
        (root / 'data.yaml').write_text(f'{names}\ntrain: train/images\nval: val/images\n')
    coco = read_data(root)
    assert coco.classes == tuple('0123456789')
    for split, ann_file in (('train', coco.train_ann), ('val', coco.val_ann)):
        expected, actual = truth_of(digits / 'annotations' / f'{split}.json'), truth_of(ann_file)
        assert actual.keys() == expected.keys()
        for name, boxes in expected.items():
            assert [label for label, _ in actual[name]] == [label for label, _ in boxes]
            np.testing.assert_allclose(
                [box for _, box in actual[name]], [box for _, box in boxes], rtol=0, atol=tolerance
            )


def assert_alike(reading: Reading, data: sv.DetectionDataset) -> None:
    ours = boxes_of(reading)
    assert {Path(path).name for path in data.image_paths} == {*ours}
    for path, detections in data.annotations.items():
        boxes = np.array([box for _, box in ours[Path(path).name]]).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        np.testing.assert_allclose(boxes, detections.xyxy, **within('px'))
        assert [label for label, _ in ours[Path(path).name]] == [data.classes[key] for key in detections.class_id]


def test_yolo_is_read_alike(tmp_path: Path) -> None:
    labels = {
        'plain.jpg': '1 0.5 0.5 0.2 0.4\r\n\r\n0 0.123 0.456 0.1 0.2\n',
        'polygons.jpg': '0 0.1 0.2 0.5 0.2 0.3 0.8\n1 0.1 0.1 0.4 0.2 0.4 0.6 0.2 0.7\n',
        'over.JPG': '1 0.95 0.5 0.2 0.4 0.9\n',
        'turned.jpg': '0 0.5 0.5 0.2 0.4\n',
        'empty.jpg': '',
        'none.jpg': None,
    }
    description = yolo_set(tmp_path, labels)
    write_image(tmp_path / 'images' / 'turned.jpg', orientation=TURNED)
    data = sv.DetectionDataset.from_yolo(str(tmp_path / 'images'), str(tmp_path / 'labels'), str(description))
    assert_alike(read_yolo(Folder(tmp_path), description), data)


def test_voc_is_read_alike(tmp_path: Path) -> None:
    for name, objects in {
        'a': [('cat', (1, 1, 100, 50)), ('dog', (11, 21, 30, 40))],
        'b': [('dog', ('5.0', '6.0', '9.5', '8.0')), ('cat', (9, 9, 4, 4))],
        'none': [],
    }.items():
        write_image(tmp_path / 'images' / f'{name}.jpg')
        write_text(tmp_path / 'xml' / f'{name}.xml', voc_xml(objects, None))
    folder = Folder(tmp_path)
    data = sv.DetectionDataset.from_pascal_voc(str(tmp_path / 'images'), str(tmp_path / 'xml'))
    assert_alike(read_voc(folder, folder.with_suffix('.xml')), data)
