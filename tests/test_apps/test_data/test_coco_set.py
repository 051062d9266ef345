"""Sets are found in the arrangements that people have, and what is not found is said."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mmdet_iouquery.apps.data.coco_set import CocoSet, find_coco_set, role_of
from mmdet_iouquery.errors import InputError

CATEGORIES = ((3, 'cat'), (17, 'dog'), (900, 'ox'))


def write_set(
    ann_file: Path,
    image_dir: Path,
    names: Sequence[str],
    categories: Sequence[tuple[int, str]] = CATEGORIES,
    first_id: int = 1,
) -> None:
    """A COCO JSON with one box an image, and empty files for its images."""
    images = [dict(id=first_id + i, file_name=name, width=64, height=48) for i, name in enumerate(names)]
    annotations: list[dict[str, Any]] = [
        dict(id=i, image_id=image['id'], category_id=categories[i % len(categories)][0], bbox=[1, 2, 10, 20], area=200)
        for i, image in enumerate(images)
    ]
    ann_file.parent.mkdir(parents=True, exist_ok=True)
    content = dict(images=images, annotations=annotations, categories=[dict(id=i, name=n) for i, n in categories])
    ann_file.write_text(json.dumps(content))
    for name in names:
        (image_dir / name).parent.mkdir(parents=True, exist_ok=True)
        (image_dir / name).touch()


def names(prefix: str, count: int) -> list[str]:
    return [f'{prefix}{i:03d}.jpg' for i in range(count)]


# Annotation file and image folder of training and of validation, relative to the set.
LAYOUTS = {
    'official': (
        'annotations/instances_train2017.json',
        'train2017',
        'annotations/instances_val2017.json',
        'val2017',
    ),
    'official below images': (
        'annotations/instances_train2017.json',
        'images/train2017',
        'annotations/instances_val2017.json',
        'images/val2017',
    ),
    'roboflow': ('train/_annotations.coco.json', 'train', 'valid/_annotations.coco.json', 'valid'),
    'annotations': ('annotations/train.json', 'train', 'annotations/val.json', 'val'),
    'one image folder': ('train.json', 'images', 'val.json', 'images'),
    'role below': ('training/labels.json', 'training/images', 'validation/labels.json', 'validation/images'),
}


@pytest.mark.parametrize('layout', LAYOUTS)
def test_layouts(tmp_path: Path, layout: str) -> None:
    train_ann, train_images, val_ann, val_images = (tmp_path / path for path in LAYOUTS[layout])
    # The same names in both, as in sets that number each part from one, unless they share a folder.
    write_set(train_ann, train_images, names('a', 12))
    write_set(val_ann, val_images, names('a' if train_images != val_images else 'b', 5))
    assert find_coco_set(tmp_path) == CocoSet(train_ann, train_images, val_ann, val_images, ('cat', 'dog', 'ox'))


def test_test_files_and_other_tasks_are_ignored(tmp_path: Path) -> None:
    for split in ('train', 'val'):
        write_set(tmp_path / f'annotations/instances_{split}2017.json', tmp_path / f'{split}2017', names('a', 3))
        for task in ('captions', 'person_keypoints'):
            (tmp_path / f'annotations/{task}_{split}2017.json').write_text('{}')
    (tmp_path / 'annotations/image_info_test-dev2017.json').write_text('{}')
    (tmp_path / 'test').mkdir()
    (tmp_path / 'test/_annotations.coco.json').write_text('broken')
    coco_set = find_coco_set(tmp_path)
    assert coco_set.train_ann.name == 'instances_train2017.json' and coco_set.val_images == tmp_path / 'val2017'


def test_sub_folders_in_file_names(tmp_path: Path) -> None:
    write_set(tmp_path / 'annotations/train.json', tmp_path / 'images', ['day/1.jpg', 'night/1.jpg'])
    write_set(tmp_path / 'annotations/val.json', tmp_path / 'images', ['dusk/1.jpg'])
    coco_set = find_coco_set(tmp_path)
    assert coco_set.train_images == coco_set.val_images == tmp_path / 'images'


def test_classes_keep_the_order_of_the_file(tmp_path: Path) -> None:
    shuffled = ((900, 'ox'), (0, 'cat'), (17, 'dog'))
    for split in ('train', 'val'):
        write_set(tmp_path / f'{split}.json', tmp_path / 'images', names(split, 3), shuffled)
    assert find_coco_set(tmp_path).classes == ('ox', 'cat', 'dog')


@pytest.mark.parametrize('give_file', [False, True])
def test_a_single_json_is_split_by_image_id(
    tmp_path: Path, give_file: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    root, split = tmp_path / 'set', tmp_path / 'split'
    write_set(root / 'annotations/instances_default.json', root / 'images', names('a', 20))
    actual = find_coco_set(root / 'annotations/instances_default.json' if give_file else root, split)
    assert actual == CocoSet(
        split / 'train.json', root / 'images', split / 'val.json', root / 'images', ('cat', 'dog', 'ox')
    )
    train, val = (json.loads(path.read_text()) for path in (actual.train_ann, actual.val_ann))
    train_ids, val_ids = ({image['id'] for image in content['images']} for content in (train, val))
    assert (len(train_ids), len(val_ids)) == (16, 4) and train_ids | val_ids == set(range(1, 21))
    assert {a['image_id'] for a in train['annotations']} == train_ids
    assert {a['image_id'] for a in val['annotations']} == val_ids
    output = capsys.readouterr().out
    assert '16 of its images are for training' in output and '4 for validation' in output


def test_the_split_does_not_depend_on_the_order_of_the_file(tmp_path: Path) -> None:
    ann = tmp_path / 'set/all.json'
    write_set(ann, tmp_path / 'set/images', names('a', 30))
    first = find_coco_set(ann, tmp_path / 'first')
    content = json.loads(ann.read_text())
    content['images'].reverse()
    ann.write_text(json.dumps(content))
    second = find_coco_set(ann, tmp_path / 'second')
    ids = [sorted(i['id'] for i in json.loads(s.val_ann.read_text())['images']) for s in (first, second)]
    assert ids[0] == ids[1] == [8, 9, 10, 13, 17, 29], 'the six smallest SHA-256 of "1" to "30"'


def test_a_training_file_alone_is_split(tmp_path: Path) -> None:
    write_set(tmp_path / 'set/train/_annotations.coco.json', tmp_path / 'set/train', names('a', 5))
    coco_set = find_coco_set(tmp_path / 'set', tmp_path / 'split')
    assert coco_set.val_images == tmp_path / 'set/train' and coco_set.val_ann == tmp_path / 'split/val.json'


def test_a_single_json_needs_a_place_for_the_split(tmp_path: Path) -> None:
    write_set(tmp_path / 'all.json', tmp_path / 'images', names('a', 5))
    with pytest.raises(InputError, match=r'all\.json has no validation part; name a folder \(split_to\)'):
        find_coco_set(tmp_path)


def test_a_lost_annotation_is_told_before_splitting(tmp_path: Path) -> None:
    write_set(tmp_path / 'all.json', tmp_path / 'images', names('a', 5))
    content = json.loads((tmp_path / 'all.json').read_text())
    content['annotations'][2]['image_id'] = 77
    (tmp_path / 'all.json').write_text(json.dumps(content))
    with pytest.raises(InputError, match=r'annotation id 2 has image_id 77'):
        find_coco_set(tmp_path, tmp_path / 'split')


@pytest.mark.parametrize(
    ('val_categories', 'message'),
    [
        (((3, 'cat'), (17, 'dog')), r"only in the first: \[\(900, 'ox'\)\], only in the second: none"),
        (((3, 'cat'), (17, 'dog'), (901, 'ox')), r"\(900, 'ox'\).*\(901, 'ox'\)"),
        (((17, 'dog'), (3, 'cat'), (900, 'ox')), 'order differs'),
    ],
)
def test_different_categories(tmp_path: Path, val_categories: tuple[tuple[int, str], ...], message: str) -> None:
    write_set(tmp_path / 'train.json', tmp_path / 'images', names('a', 3))
    write_set(tmp_path / 'val.json', tmp_path / 'images', names('b', 3), val_categories)
    with pytest.raises(InputError, match=message) as error:
        find_coco_set(tmp_path)
    assert str(tmp_path / 'train.json') in str(error.value) and str(tmp_path / 'val.json') in str(error.value)


def test_nothing_found_says_what_is_there(tmp_path: Path) -> None:
    (tmp_path / 'images').mkdir()
    (tmp_path / 'classes.json').write_text('["cat"]')
    with pytest.raises(InputError) as error:
        find_coco_set(tmp_path)
    for fact in (str(tmp_path), 'classes.json', 'images/', 'annotations/train.json'):
        assert fact in str(error.value)
    with pytest.raises(InputError, match='no folder or file'):
        find_coco_set(tmp_path / 'absent')


def test_two_files_for_one_role(tmp_path: Path) -> None:
    for name in ('train.json', 'annotations/instances_train.json', 'val.json'):
        write_set(tmp_path / name, tmp_path / 'images', names('a', 3))
    with pytest.raises(
        InputError, match=r'2 annotation files for train: annotations/instances_train\.json, train\.json'
    ):
        find_coco_set(tmp_path)


def test_two_files_of_unclear_purpose(tmp_path: Path) -> None:
    for name in ('a.json', 'b.json'):
        write_set(tmp_path / name, tmp_path / 'images', names('a', 3))
    with pytest.raises(InputError, match=r'several COCO files of unclear purpose: a\.json, b\.json'):
        find_coco_set(tmp_path, tmp_path / 'split')


def test_validation_alone(tmp_path: Path) -> None:
    write_set(tmp_path / 'val.json', tmp_path / 'images', names('a', 3))
    with pytest.raises(InputError, match=r'val\.json\) but none for training'):
        find_coco_set(tmp_path)


def test_images_that_are_nowhere_and_images_that_are_twice(tmp_path: Path) -> None:
    for split in ('train', 'val'):
        write_set(tmp_path / f'{split}.json', tmp_path / 'images', names(split, 3))
    shutil.copytree(tmp_path / 'images', tmp_path / 'backup')
    with pytest.raises(InputError, match=r'train\.json: its images are in several folders: backup, images'):
        find_coco_set(tmp_path)
    shutil.rmtree(tmp_path / 'backup')
    (tmp_path / 'images/train001.jpg').unlink()
    with pytest.raises(InputError, match=r"images lacks the image 'train001\.jpg', though it has 2 of 3 that"):
        find_coco_set(tmp_path)
    shutil.rmtree(tmp_path / 'images')
    with pytest.raises(InputError, match=r"no folder of .* has its images, such as 'train000\.jpg'; arrange"):
        find_coco_set(tmp_path)


def test_duplicate_ids_are_told(tmp_path: Path) -> None:
    write_set(tmp_path / 'train.json', tmp_path / 'images', names('a', 3), ((1, 'cat'), (1, 'dog')))
    write_set(tmp_path / 'val.json', tmp_path / 'images', names('b', 3))
    with pytest.raises(InputError, match=r'train\.json: category id 1 is used 2 times'):
        find_coco_set(tmp_path)


@pytest.mark.parametrize(
    ('name', 'role'),
    [
        ('instances_train2017.json', 'train'),
        ('valid/_annotations.coco.json', 'val'),
        ('train/val.json', 'val'),
        ('test/labels.json', 'test'),
        ('my-Training-set.json', 'train'),
        ('train_and_val.json', ''),
        ('minival.json', ''),
        ('constrained.json', ''),
    ],
)
def test_roles_are_whole_words(name: str, role: str) -> None:
    assert role_of(Path('train_data') / name, Path('train_data')) == role
