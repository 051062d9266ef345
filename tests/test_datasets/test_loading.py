"""The loading transforms: what is skipped, what is raised, and what is told of it."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import resource
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from image_files import UPRIGHT_AGAIN, encoded, half_of_zeros, random_image, turned
from mmdet.datasets import CocoDataset
from mmdet.registry import TRANSFORMS
from mmengine.dataset import pseudo_collate
from mmengine.logging import MMLogger
from torch.utils.data import DataLoader

from mmdet_iouquery import config_path
from mmdet_iouquery.datasets.loading import MAX_IN_A_ROW, LoadCheckedImage
from mmdet_iouquery.errors import InputError

GOOD, BAD = 6, 3


def coco_set(folder: Path, files: dict[str, bytes], size: tuple[int, int] = (48, 32)) -> Path:
    """A COCO-style set of these files, one box each."""
    (folder / 'images').mkdir(parents=True)
    for name, data in files.items():
        (folder / 'images' / name).write_bytes(data)
    images = [dict(id=i, file_name=name, width=size[0], height=size[1]) for i, name in enumerate(files)]
    box = dict(category_id=1, bbox=[2, 3, 20, 20], area=400, iscrowd=0)
    content = dict(
        images=images,
        annotations=[dict(box, id=i, image_id=i) for i in range(len(files))],
        categories=[dict(id=1, name='thing')],
    )
    (folder / 'ann.json').write_text(json.dumps(content))
    return folder


def dataset(folder: Path, load: dict[str, Any] | list[dict[str, Any]], **options: Any) -> CocoDataset:
    loaders = load if isinstance(load, list) else [load]
    return CocoDataset(
        ann_file=str(folder / 'ann.json'),
        data_prefix=dict(img=str(folder / 'images')),
        metainfo=dict(classes=('thing',)),
        pipeline=[*loaders, dict(type='LoadAnnotations', with_bbox=True), dict(type='PackDetInputs')],
        **options,
    )


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """Whole images, and every third one cut short."""
    whole, cut = encoded(random_image(), 'JPEG'), encoded(random_image(), 'JPEG')[:-60]
    return coco_set(tmp_path, {f'{i}.jpg': cut if i % 3 == 2 else whole for i in range(GOOD + BAD)})


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """The file that the current logger writes, from whichever process."""
    path = tmp_path / 'run.log'
    MMLogger.get_instance(f'skips of {tmp_path.name}', log_file=str(path), log_level=logging.INFO)
    return path


OURS = dict(type='LoadImageFromFile', _scope_='mmdet_iouquery')
SKIP = dict(OURS, on_error='skip')
SOURCES = {
    'train': [OURS],
    'train, as older configs name it': [dict(type='LoadCheckedImage')],
    'test': [dict(type='LoadImageFromFile'), dict(type='CheckImage')],
}


@pytest.mark.parametrize('load', SOURCES.values(), ids=SOURCES)
def test_a_whole_image_is_what_mmcv_loads(tmp_path: Path, load: list[dict[str, Any]]) -> None:
    folder = coco_set(tmp_path, {'one.png': encoded(random_image(), 'PNG')})
    ours, theirs = dataset(folder, load)[0], dataset(folder, dict(type='LoadImageFromFile'))[0]
    assert torch.equal(ours['inputs'], theirs['inputs']) and ours['inputs'].dtype == torch.uint8
    assert ours['data_samples'].metainfo == theirs['data_samples'].metainfo


@pytest.mark.parametrize('load', SOURCES.values(), ids=SOURCES)
def test_an_image_annotated_as_stored_is_not_turned(tmp_path: Path, load: list[dict[str, Any]]) -> None:
    data = {'turned.png': turned(random_image(), 6, 'PNG')}
    stored = np.asarray(random_image())[..., ::-1].transpose(2, 0, 1)
    item = dataset(coco_set(tmp_path / 'stored', data), load)[0]
    np.testing.assert_array_equal(item['inputs'], stored)
    assert item['data_samples'].ori_shape == (32, 48)
    item = dataset(coco_set(tmp_path / 'upright', data, size=(32, 48)), load)[0]
    upright = np.asarray(random_image().transpose(UPRIGHT_AGAIN[6]))[..., ::-1].transpose(2, 0, 1)
    np.testing.assert_array_equal(item['inputs'], upright)


@pytest.mark.parametrize('load', SOURCES.values(), ids=SOURCES)
@pytest.mark.parametrize(
    ('data', 'size', 'reason'),
    [
        (
            half_of_zeros(encoded(random_image(640, 480, blur=1), 'JPEG', quality=90)),
            (640, 480),
            'the file is cut short',
        ),
        (encoded(random_image(), 'PNG'), (48, 33), 'the image is 48 x 32 px, but its annotation says 48 x 33'),
    ],
    ids=['half of zeros', 'another size'],
)
def test_an_unusable_image_is_an_error_with_file_reason_and_remedy(
    tmp_path: Path, load: list[dict[str, Any]], data: bytes, size: tuple[int, int], reason: str
) -> None:
    folder = coco_set(tmp_path, {'bad one.jpg': data}, size)
    with pytest.raises(InputError, match=rf'images/bad one.jpg: {reason}.*repair the file.*doctor data CONFIG'):
        dataset(folder, load, test_mode=True)[0]


def test_a_missing_file_is_an_unusable_image(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r'nowhere.jpg: it cannot be read: No such file'):
        LoadCheckedImage()({'img_path': str(tmp_path / 'nowhere.jpg')})


@pytest.mark.parametrize('on_error', ['raise', 'skip'])
def test_what_cannot_be_opened_for_the_process_is_no_fault_of_the_image(on_error: str, tmp_path: Path) -> None:
    (tmp_path / 'a.jpg').write_bytes(encoded(random_image(), 'JPEG'))
    load = LoadCheckedImage(on_error=on_error)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(OSError, match='Too many open files'):
            load({'img_path': str(tmp_path / 'a.jpg')})
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert load.skipped == 0 and load({'img_path': str(tmp_path / 'a.jpg')})['img'].shape == (32, 48, 3)


def test_without_an_annotated_size_any_size_will_do(tmp_path: Path) -> None:
    (tmp_path / 'one.jpg').write_bytes(encoded(random_image(), 'JPEG'))
    results = LoadCheckedImage(to_float32=True)({'img_path': str(tmp_path / 'one.jpg'), 'width': None, 'height': None})
    assert results['img'].dtype == np.float32 and results['img_shape'] == results['ori_shape'] == (32, 48)


def test_images_that_come_as_arrays_pass() -> None:
    results = {'img': np.zeros((4, 5, 3), np.uint8), 'img_path': None, 'width': 9, 'height': 9}
    assert TRANSFORMS.build(dict(type='CheckImage'))(results) is results


@pytest.mark.parametrize('load', [SKIP, *SOURCES.values()], ids=['skip', *SOURCES])
def test_an_image_that_is_used_with_a_remark_stands_in_the_log_once(tmp_path: Path, log: Path, load: Any) -> None:
    """Nearly black, as few of its 16 bits are used."""
    deep = cv2.imencode('.png', np.full((32, 48), 4000, np.uint16))[1].tobytes()
    items = dataset(coco_set(tmp_path / 'set', {'deep.png': deep}), load)
    assert all(items[0]['inputs'].max() == 15 for _ in range(3))
    assert log.read_text().count('images/deep.png: its 16-bit samples go up to 4000 of 65535 only') == 1


def test_a_jpeg_without_its_end_is_loaded_and_stands_in_the_log(tmp_path: Path, log: Path) -> None:
    data = encoded(random_image(), 'JPEG')
    items = dataset(coco_set(tmp_path / 'set', {'0.jpg': data, '1.jpg': data[:-2]}), SKIP)
    assert torch.equal(items[0]['inputs'], items[1]['inputs'])
    assert log.read_text().count('images/1.jpg: the JPEG lacks its end marker; every pixel is there') == 1
    assert items.pipeline.transforms[0].skipped == 0


def test_skipping_draws_other_samples_and_names_each_file_once(broken: Path, log: Path) -> None:
    items = dataset(broken, SKIP)
    load = items.pipeline.transforms[0]
    for _ in range(5):
        for i in range(len(items)):
            assert int(Path(items[i]['data_samples'].img_path).stem) % 3 != 2
    assert load.skipped >= 5 * BAD and load.ledger.files == BAD
    text = log.read_text()
    for name in ('2.jpg', '5.jpg', '8.jpg'):
        assert text.count(f'images/{name}: the file is cut short: the JPEG has no end') == 1


def test_workers_count_for_the_main_process(broken: Path, log: Path) -> None:
    """Each of three passes asks for each bad file at least once, in whichever of two workers."""
    items = dataset(broken, SKIP)
    load = items.pipeline.transforms[0]
    loader = DataLoader(items, 1, num_workers=2, multiprocessing_context='fork', collate_fn=pseudo_collate)
    for turn in range(3):
        before = load.skipped
        assert len([batch for batch in loader if batch]) == GOOD + BAD
        assert load.skipped - before >= BAD, turn
    assert load.ledger.files == BAD
    # once each; twice only where two workers meet a file at the same instant
    assert BAD <= log.read_text().count('skipped in training') <= 2 * BAD


def test_copies_count_for_themselves(tmp_path: Path) -> None:
    load = LoadCheckedImage(on_error='skip')
    missing = {'img_path': str(tmp_path / 'none.jpg')}
    assert load(missing) is None
    for other in (copy.deepcopy(load), pickle.loads(pickle.dumps(load))):
        assert other.skipped == 1 and other._in_a_row == 1
        assert other(missing) is None
        assert (other.skipped, load.skipped) == (2, 1)
        assert other.ledger._counts.is_shared() and other.ledger._names.is_shared()
    shallow = copy.copy(load)
    assert shallow(missing) is None and load.skipped == shallow.skipped == 2


def test_a_set_without_a_usable_image_is_one_clear_error(tmp_path: Path, log: Path) -> None:
    items = dataset(coco_set(tmp_path / 'set', {f'{i}.jpg': b'' for i in range(3)}), SKIP)
    with pytest.raises(InputError, match=rf'{MAX_IN_A_ROW} images on end .* last of them .*: the file is empty; re'):
        items[0]
    assert items.pipeline.transforms[0].skipped == MAX_IN_A_ROW - 1
    assert log.read_text().count('the file is empty') == 3


def test_one_good_image_among_many_bad_ones_starts_the_count_anew(tmp_path: Path) -> None:
    load = LoadCheckedImage(on_error='skip')
    (tmp_path / 'one.jpg').write_bytes(encoded(random_image(), 'JPEG'))
    for name, count in (('none.jpg', MAX_IN_A_ROW - 1), ('one.jpg', 1), ('none.jpg', MAX_IN_A_ROW - 1)):
        for _ in range(count):
            assert (load({'img_path': str(tmp_path / name)}) is None) == (name == 'none.jpg')


def test_on_error_is_one_of_two_words() -> None:
    with pytest.raises(ValueError, match=r"on_error must be one of \('raise', 'skip'\), got 'ignore'"):
        LoadCheckedImage(on_error='ignore')
    assert repr(LoadCheckedImage()) == "LoadCheckedImage(on_error='raise', to_float32=False, backend_args=None)"


def test_mmdets_inferencer_takes_files_and_arrays_through_our_test_pipeline(tmp_path: Path) -> None:
    """It puts a loader of its own in the place of ``LoadImageFromFile``, for which it looks by name."""
    from mmdet.apis import DetInferencer

    config = config_path('quickstart/rtdetr_r18vd_digits.py')
    inferencer = DetInferencer(model=str(config), device='cpu', show_progress=False)
    (tmp_path / 'whole.png').write_bytes(encoded(random_image(), 'PNG'))
    (tmp_path / 'cut.jpg').write_bytes(encoded(random_image(), 'JPEG')[:-60])
    array = np.ascontiguousarray(np.asarray(random_image())[..., ::-1])
    results = [inferencer(item, no_save_vis=True)['predictions'][0] for item in (str(tmp_path / 'whole.png'), array)]
    assert len(results[0]['scores']) == 50 and results[0] == results[1]
    with pytest.raises((InputError, AssertionError), match=r'cut.jpg'):
        inferencer(str(tmp_path / 'cut.jpg'), no_save_vis=True)
