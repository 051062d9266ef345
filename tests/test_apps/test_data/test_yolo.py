"""YOLO: boxes by hand, and every oddity that label files have."""

from __future__ import annotations

from pathlib import Path

import pytest
from form_sets import TURNED, boxes_of, changed, left_out, write_image, write_text, yolo_set

from mmdet_iouquery.apps.data.folder import Folder
from mmdet_iouquery.apps.data.reading import Reading, check_reading
from mmdet_iouquery.apps.data.yolo import describes_yolo, read_yolo
from mmdet_iouquery.errors import InputError

BOX = '1 0.5 0.5 0.2 0.4\n'  # of an image of 100 x 50 px
IN_PX = ('dog', (40.0, 15.0, 20.0, 20.0))


def read(description: Path) -> Reading:
    return read_yolo(Folder(description.parent), description)


def test_a_box_is_centre_and_sides_in_shares_of_the_image(tmp_path: Path) -> None:
    reading = read(yolo_set(tmp_path, {'a.jpg': BOX + '0 0.1 0.2 0.2 0.4\n'}))
    assert boxes_of(reading) == {'a.jpg': [IN_PX, ('cat', (0.0, 0.0, 20.0, 20.0))]}
    assert reading.classes == ('cat', 'dog') and reading.images[0].size == (100, 50)
    assert not reading.account.left_out and not reading.account.changed


@pytest.mark.parametrize(
    'text',
    [
        BOX.replace('\n', '\r\n') + '\r\n\r\n',
        '\ufeff' + BOX,
        '1.000000e+00 5e-1 0.5 2.0e-1 0.4',
        '\t1\t0.5  0.5 0.2 0.4   ',
    ],
    ids=['CRLF and empty lines', 'byte order mark', 'floats of numpy', 'tabs and blanks'],
)
def test_one_box_however_it_is_written(tmp_path: Path, text: str) -> None:
    assert boxes_of(read(yolo_set(tmp_path, {'a.jpg': text}))) == {'a.jpg': [IN_PX]}


def test_polygons_oriented_boxes_and_keypoints_become_boxes(tmp_path: Path) -> None:
    polygon, oriented = '0 0.1 0.2 0.5 0.2 0.3 0.8\n', '1 0.2 0.1 0.4 0.3 0.3 0.5 0.1 0.3\n'
    reading = read(yolo_set(tmp_path / 'a', {'a.jpg': polygon + oriented}))
    assert boxes_of(reading) == {'a.jpg': [('cat', (10.0, 10.0, 40.0, 30.0)), ('dog', (10.0, 5.0, 30.0, 20.0))]}
    assert changed(reading) == {'polygons converted to boxes': 2}

    pose = BOX.strip() + ' 0.5 0.5 2 0.6 0.6 1\n'  # 11 numbers: of another length, these would be a polygon's
    reading = read(yolo_set(tmp_path / 'b', {'a.jpg': pose}, 'kpt_shape: [2, 3]\nnames: [cat, dog]'))
    assert boxes_of(reading) == {'a.jpg': [IN_PX]}
    assert changed(reading) == {'keypoints left out, their boxes kept': 1}


def test_a_confidence_is_not_used(tmp_path: Path) -> None:
    reading = read(yolo_set(tmp_path, {'a.jpg': BOX.strip() + ' 0.93'}))
    assert boxes_of(reading) == {'a.jpg': [IN_PX]}
    assert changed(reading) == {'a sixth number (a confidence, or a track) left out': 1}


def test_what_is_no_box_is_left_out_and_told(tmp_path: Path) -> None:
    bad = ['7 0.5 0.5 0.2 0.4', '-1 0.5 0.5 0.2 0.4', '0.5 0.5 0.5 0.2 0.4', '0 nan 0.5 0.2 0.4', '0 a 0.5 0.2 0.4']
    bad += ['0 0.5 0.5 0 0.4', '0 0.5 0.5 0.2 -0.4', '0 0.5 0.5 0.2', '0 0.1 0.2 0.5 0.2 0.3 0.8 0.9', BOX.strip()]
    good = [f'0 0.{i} 0.5 0.1 0.1' for i in range(1, 10)]
    reading = read(yolo_set(tmp_path, {'a.jpg': '\n'.join([BOX.strip(), *bad, *good])}))
    assert len(boxes_of(reading)['a.jpg']) == 10
    assert left_out(reading) == {
        ('boxes', 'class 7, which has no name'): 1,
        ('boxes', 'class -1, which has no name'): 1,
        ('boxes', 'class 0.5, which has no name'): 1,
        ('boxes', 'a line that is not made of finite numbers'): 2,
        ('boxes', 'without width or height'): 2,
        ('boxes', 'a line of 4 numbers, neither a box (5) nor a polygon (7, 9, ...)'): 1,
        ('boxes', 'a line of 8 numbers, neither a box (5) nor a polygon (7, 9, ...)'): 1,
        ('boxes', 'written twice'): 1,
    }
    assert reading.account.left_out['boxes', 'class 7, which has no name'].first == ['labels/a.txt line 2']
    check_reading(reading)


def test_boxes_over_the_border_are_kept_for_the_check(tmp_path: Path) -> None:
    assert boxes_of(read(yolo_set(tmp_path, {'a.jpg': '0 0.95 0.5 0.2 0.4'}))) == {
        'a.jpg': [('cat', (85.0, 15.0, 20.0, 20.0))]
    }


def test_images_and_labels_without_each_other(tmp_path: Path) -> None:
    description = yolo_set(tmp_path, {'a.jpg': BOX, 'empty.jpg': '', 'none.jpg': None})
    write_text(tmp_path / 'labels' / 'lonely.txt', BOX)
    write_text(tmp_path / 'labels' / 'classes.txt', 'cat\ndog\n')
    write_text(tmp_path / 'images' / 'broken.jpg', 'no image')
    write_text(tmp_path / 'labels' / 'broken.txt', BOX)  # it has an image, which is counted by itself
    reading = read(description)
    assert boxes_of(reading) == {'a.jpg': [IN_PX], 'empty.jpg': [], 'none.jpg': []}
    assert left_out(reading) == {
        ('images', 'labels without an image'): 1,
        ('images', 'no image that can be read'): 1,
    }
    assert changed(reading) == {'images without a label file read as images without objects': 1}


def test_capital_endings_blanks_and_letters_of_the_world(tmp_path: Path) -> None:
    description = yolo_set(tmp_path, {'my photo 1.JPG': BOX, 'größe.Png': BOX})
    (tmp_path / 'labels' / 'größe.txt').rename(tmp_path / 'labels' / 'größe.TXT')
    assert boxes_of(read(description)) == {'größe.Png': [IN_PX], 'my photo 1.JPG': [IN_PX]}


def test_shares_are_of_the_image_as_it_is_shown(tmp_path: Path) -> None:
    description = yolo_set(tmp_path, {'a.jpg': BOX})
    write_image(tmp_path / 'images' / 'a.jpg', (100, 50), TURNED)
    reading = read(description)
    assert reading.images[0].size == (50, 100)
    assert boxes_of(reading) == {'a.jpg': [('dog', (20.0, 30.0, 10.0, 40.0))]}


@pytest.mark.parametrize(
    ('names', 'classes'),
    [
        ('names: {1: dog, 0: cat}', ('cat', 'dog')),
        ('names:\n  0: 0\n  1: 010', ('0', '010')),
        ("names: [no, 'yes']\nnc: 2", ('no', 'yes')),
        ('names:\n- cat \n- "dog"', ('cat', 'dog')),
        ('names: list.txt', ('cat', 'my dog')),
    ],
)
def test_names_are_text_in_the_order_of_their_numbers(tmp_path: Path, names: str, classes: tuple[str, ...]) -> None:
    write_text(tmp_path / 'list.txt', 'cat\r\nmy dog\r\n')
    assert read(yolo_set(tmp_path, {'a.jpg': BOX}, names)).classes == classes


def test_a_gap_in_the_names_moves_no_class(tmp_path: Path) -> None:
    reading = read(yolo_set(tmp_path, {'a.jpg': '5 0.5 0.5 0.2 0.4\n1 0.5 0.5 0.2 0.4'}, 'names: {0: cat, 5: dog}'))
    assert boxes_of(reading) == {'a.jpg': [IN_PX]} and reading.classes == ('cat', 'dog')
    assert left_out(reading) == {('boxes', 'class 1, which has no name'): 1}


PLACES = {
    'beside': ('train: images\nval: images2', 'images', 'images2'),
    'ultralytics': ('path: .\ntrain: images/train\nval: images/val', 'images/train', 'images/val'),
    'roboflow': ('train: ../train/images\nval: ../valid/images', 'train/images', 'valid/images'),
    'another machine': (
        'path: /content/set\ntrain: images/train\nval: C:\\set\\images\\val',
        'images/train',
        'images/val',
    ),
    'lists of folders': ('train: [one/images, two/images]\nval: [three/images]', 'one/images', 'three/images'),
}


@pytest.mark.parametrize('arrangement', PLACES)
def test_places_of_images_in_a_description(tmp_path: Path, arrangement: str) -> None:
    entries, train, val = PLACES[arrangement]
    for number, folder in enumerate((train, val, 'two/images')):
        image = write_image(tmp_path / folder / f'{number}.jpg')
        label = tmp_path / folder.replace('images', 'labels', 1) / f'{number}.txt'
        write_text(label if 'images2' not in folder else image.with_suffix('.txt'), BOX)
    reading = read(write_text(tmp_path / 'data.yaml', f'{entries}\nnames: [cat, dog]\n'))
    actual = {image.path.name: (image.split, len(image.boxes)) for image in reading.images}
    also = {'2.jpg': ('train', 1)} if arrangement == 'lists of folders' else {}
    assert actual == {'0.jpg': ('train', 1), '1.jpg': ('val', 1), **also}


def test_lists_of_images(tmp_path: Path) -> None:
    yolo_set(tmp_path, {f'{name}.jpg': BOX for name in 'abc'})
    write_text(
        tmp_path / 'train.txt', './images/a.jpg\n/data/elsewhere/images/b.jpg\n\nimages/gone.jpg\n./images/a.jpg\n'
    )
    write_text(tmp_path / 'val.txt', 'images\\c.jpg\r\n')
    reading = read(write_text(tmp_path / 'data.yaml', 'train: train.txt\nval: val.txt\nnames: [cat, dog]'))
    assert {image.path.name: image.split for image in reading.images} == {
        'a.jpg': 'train',
        'b.jpg': 'train',
        'c.jpg': 'val',
    }
    assert left_out(reading) == {('images', 'listed in train.txt, but not there'): 1}


def test_darknet_as_cvat_and_datumaro_write_it(tmp_path: Path) -> None:
    for split in ('train', 'valid'):
        write_image(tmp_path / f'obj_{split}_data' / f'{split}.jpg')
        write_text(tmp_path / f'obj_{split}_data' / f'{split}.txt', BOX)
        write_text(tmp_path / f'{split}.txt', f'data/obj_{split}_data/{split}.jpg\n')
    write_text(tmp_path / 'obj.names', 'cat\ndog\n')
    lines = [
        'classes = 2',
        'train = data/train.txt',
        'valid = data/valid.txt',
        'names = data/obj.names',
        'backup = backup/',
    ]
    reading = read(write_text(tmp_path / 'obj.data', '\n'.join(lines)))
    assert boxes_of(reading) == {'train.jpg': [IN_PX], 'valid.jpg': [IN_PX]}
    assert [image.split for image in reading.images] == ['train', 'val']


def test_without_a_description_classes_txt_and_folders_say_it(tmp_path: Path) -> None:
    for split in ('train', 'val'):
        write_image(tmp_path / 'images' / split / '1.jpg')
        write_text(tmp_path / 'labels' / split / '1.txt', BOX)
    write_text(tmp_path / 'classes.txt', '\ufeffcat\r\ndog\r\n')
    reading = read_yolo(Folder(tmp_path), None)
    assert [(image.split, len(image.boxes)) for image in reading.images] == [('train', 1), ('val', 1)]
    assert reading.classes == ('cat', 'dog')
    (tmp_path / 'classes.txt').unlink()
    with pytest.raises(InputError, match=r'no class names; write them to classes\.txt, one a line'):
        read_yolo(Folder(tmp_path), None)


def test_images_for_both_parts_are_told(tmp_path: Path) -> None:
    yolo_set(tmp_path, {'a.jpg': BOX})
    reading = read(write_text(tmp_path / 'data.yaml', 'train: images\nval: images\nnames: [cat, dog]'))
    assert [image.split for image in reading.images] == ['train', 'val']
    assert reading.account.remarks[0].startswith('1 images are for training and for validation')


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('train: images\nnames: []', 'names no classes'),
        ('train: images\nnames: {a: cat}', 'a key of names is no whole number'),
        ('train: images\nnames: cat', 'names: cat is no file'),
        ('train: picture\nnames: [cat, dog]', r'train: picture leads to no folder or file \(tried .*picture\)'),
        ('names: [cat, dog]', 'it has none of train, val, test'),
        ('train: images\nnames: [cat, dog', 'is no YAML that can be read'),
        ('- train', 'holds no keys'),
        ('train: images\nnames: [cat, dog]\nkpt_shape: [17]', r'kpt_shape .* is not \[points, 2 or 3\]'),
    ],
)
def test_what_is_wrong_with_a_description_is_told(tmp_path: Path, text: str, message: str) -> None:
    yolo_set(tmp_path, {'a.jpg': BOX})
    with pytest.raises(InputError, match=message):
        read(write_text(tmp_path / 'data.yaml', text))


def test_another_encoding_is_told_with_its_remedy(tmp_path: Path) -> None:
    description = yolo_set(tmp_path, {'a.jpg': BOX})
    write_text(description, 'train: images\nnames: [größe, b]', 'latin-1')
    with pytest.raises(InputError, match=r'not in UTF-8 .* iconv -f LATIN1'):
        read(description)


def test_px_in_place_of_shares_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r'2 of 2 boxes lie outside their image by far; YOLO has .* shares'):
        read(yolo_set(tmp_path, {'a.jpg': '0 50 25 20 20\n1 60 30 10 10'}))


def test_a_fault_of_most_boxes_is_refused(tmp_path: Path) -> None:
    reading = read(yolo_set(tmp_path, {'a.jpg': '7 0.5 0.5 0.2 0.4\n7 0.4 0.5 0.2 0.4\n1 0.5 0.5 0.2 0.4'}))
    with pytest.raises(InputError, match='2 of 3 boxes would be left out: class 7, which has no name'):
        check_reading(reading)


def test_one_name_for_two_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the class name 'cat' is given to several classes"):
        check_reading(read(yolo_set(tmp_path, {'a.jpg': BOX}, 'names: [cat, cat]')))


def test_other_yaml_files_are_no_descriptions(tmp_path: Path) -> None:
    assert describes_yolo(write_text(tmp_path / 'a.yaml', 'train: x\nnames: [a]'))
    assert describes_yolo(write_text(tmp_path / 'data.yaml', 'names: ['))
    assert not describes_yolo(write_text(tmp_path / 'b.yaml', 'version: 2\nnames: [a]'))
    assert not describes_yolo(write_text(tmp_path / 'c.yaml', 'model: [1'))
