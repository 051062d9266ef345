"""Pascal VOC: corners by hand, counted from 1 and from 0, and every oddity that XML files have."""

from __future__ import annotations

from pathlib import Path

import pytest
from form_sets import TURNED, boxes_of, changed, left_out, voc_xml, write_image, write_text

from mmdet_iouquery.apps.data.folder import Folder
from mmdet_iouquery.apps.data.reading import Reading, check_reading
from mmdet_iouquery.apps.data.voc import first_pixel, read_voc, voc_box
from mmdet_iouquery.errors import InputError


def read(root: Path) -> Reading:
    folder = Folder(root)
    return read_voc(folder, folder.with_suffix('.xml'))


def one_image(root: Path, text: str, size: tuple[int, int] = (100, 50), encoding: str = 'utf-8') -> Path:
    write_image(root / 'JPEGImages' / 'a.jpg', size)
    write_text(root / 'Annotations' / 'a.xml', text, encoding)
    return root


def test_pixels_counted_from_1_belong_to_the_box(tmp_path: Path) -> None:
    reading = read(one_image(tmp_path, voc_xml([('cat', (1, 1, 100, 50)), ('dog', (11, 21, 30, 40))])))
    assert boxes_of(reading) == {'a.jpg': [('cat', (0, 0, 100, 50)), ('dog', (10, 20, 20, 20))]}
    assert reading.account.remarks[0].startswith('corners are counted from 1')


def test_a_corner_below_1_shows_that_a_set_counts_from_0(tmp_path: Path) -> None:
    reading = read(one_image(tmp_path, voc_xml([('cat', (0, 0, 100, 50)), ('dog', (10, 20, 30, 40))])))
    assert boxes_of(reading) == {'a.jpg': [('cat', (0, 0, 100, 50)), ('dog', (10, 20, 20, 20))]}
    assert reading.account.remarks[0].startswith('corners are counted from 0: some lie below 1')


def test_the_sign_is_of_the_whole_set() -> None:
    assert first_pixel([(1, 1, 9, 9), (5.5, 2, 8, 8), (3, 3, 4, 4)])[0] == 1
    assert first_pixel([(1.0, 1.0, 9.0, 9.0)])[0] == 1, 'whole numbers, however they are written'
    assert first_pixel([(1.5, 1.5, 9, 9), (5.5, 2, 8, 8), (3, 3, 4, 4)])[0] == 0
    assert first_pixel([(1, 1, 9, 9), (0.5, 2, 8, 8), (3, 3, 4, 4)])[0] == 0
    assert voc_box((1, 1, 1, 1), 1) == (0, 0, 1, 1), 'one pixel'


def test_floats_that_begin_at_1(tmp_path: Path) -> None:
    reading = read(one_image(tmp_path, voc_xml([('cat', ('1.0', ' 1.000 ', '100.0', '5e1'))])))
    assert boxes_of(reading) == {'a.jpg': [('cat', (0, 0, 100, 50))]}


def test_difficult_objects_are_crowds_and_truncated_ones_are_not(tmp_path: Path) -> None:
    difficult = voc_xml([('cat', (1, 1, 9, 9))], more='<truncated>1</truncated><difficult>1</difficult>')
    write_image(tmp_path / 'b.jpg')
    write_text(
        tmp_path / 'b.xml', voc_xml([('cat', (1, 1, 9, 9))], more='<truncated>1</truncated><occluded>1</occluded>')
    )
    reading = read(one_image(tmp_path, difficult))
    assert {image.path.name: image.boxes[0].crowd for image in reading.images} == {'a.jpg': True, 'b.jpg': False}
    assert changed(reading) == {'objects marked difficult read as crowds: neither trained on nor counted as missed': 1}


@pytest.mark.parametrize('stated', [None, (0, 0)])
def test_without_a_size_the_image_has_its_own(tmp_path: Path, stated: tuple[int, int] | None) -> None:
    assert read(one_image(tmp_path, voc_xml([('cat', (1, 1, 9, 9))], stated))).images[0].size == (100, 50)


@pytest.mark.parametrize('size', [(100, 50), (50, 100)])
def test_a_turned_image_is_as_its_labels_say(tmp_path: Path, size: tuple[int, int]) -> None:
    one_image(tmp_path, voc_xml([('cat', (1, 1, 9, 9))], size))
    write_image(tmp_path / 'JPEGImages' / 'a.jpg', (100, 50), TURNED)
    assert read(tmp_path).images[0].size == size


def test_what_cannot_be_read_is_left_out_and_told(tmp_path: Path) -> None:
    write_text(tmp_path / 'Annotations' / 'a.xml', voc_xml([('cat', (1, 1, 9, 9))]))
    for name, text in {
        'size': voc_xml([('cat', (1, 1, 9, 9))], (200, 100)),
        'broken': '<annotation><object>',
        'other': '<notes/>',
        'bomb': '<!DOCTYPE a [<!ENTITY b "c">]>' + voc_xml([]),
        'objects': voc_xml([('dog', (1, 1, 'x', 9)), ('', (1, 1, 9, 9)), ('dog', (5, 5, 4, 9)), ('cat', (9, 9, 4, 4))]),
        'none': voc_xml([]),
    }.items():
        write_image(tmp_path / 'JPEGImages' / f'{name}.jpg')
        write_text(tmp_path / 'Annotations' / f'{name}.xml', text)
    write_image(tmp_path / 'JPEGImages' / 'alone.jpg')
    reading = read(tmp_path)
    assert boxes_of(reading) == {'none.jpg': [], 'objects.jpg': [('dog', (3, 4, 2, 5)), ('cat', (3, 3, 6, 6))]}
    assert changed(reading) == {'corners put in order': 2}
    assert left_out(reading) == {
        ('images', 'no image of that name'): 1,
        ('images', 'the size in the labels is not that of the image'): 1,
        ('images', 'a broken XML file'): 1,
        ('images', 'an XML file that is not Pascal VOC'): 1,
        ('images', 'an XML file that declares entities'): 1,
        ('images', 'without an XML file'): 1,
        ('boxes', 'an object without a box of four numbers'): 1,
        ('boxes', 'an object without a name'): 1,
    }


def test_polygons_without_boxes_become_boxes(tmp_path: Path) -> None:
    points = '<polygon><x1>11</x1><y1>6</y1><x2>30</x2><y2>6</y2><x3>20</x3><y3>25</y3></polygon>'
    reading = read(one_image(tmp_path, f'<annotation><object><name>cat</name>{points}</object></annotation>'))
    assert boxes_of(reading) == {'a.jpg': [('cat', (10, 5, 20, 20))]}
    assert changed(reading) == {'polygons converted to boxes': 1}


@pytest.mark.parametrize('encoding', ['utf-8-sig', 'utf-16'])
def test_encodings_that_xml_names_itself(tmp_path: Path, encoding: str) -> None:
    text = voc_xml([(' größe ', (1, 1, 9, 9))])
    assert read(one_image(tmp_path, text, encoding=encoding)).classes == ('größe',)


def test_lists_say_the_parts_and_columns_of_classes_do_not_matter(tmp_path: Path) -> None:
    for name in ('a 1', 'b', 'c', 'd'):
        write_image(tmp_path / 'JPEGImages' / f'{name}.JPG')
        write_text(tmp_path / 'Annotations' / f'{name}.xml', voc_xml([('cat', (1, 1, 9, 9))]))
    main = tmp_path / 'ImageSets' / 'Main'
    write_image(tmp_path / 'JPEGImages' / 'gone.jpg')  # counted once, by its list
    lists = {
        'train': 'a 1\n\n',
        'val': 'b  1\r\n',
        'trainval': 'a 1\nb\ngone\n',
        'cat_train': 'd -1',
        'test': 'c\ngone\n',
    }
    for name, text in lists.items():
        write_text(main / f'{name}.txt', text)
    reading = read(tmp_path)
    assert {image.path.stem: image.split for image in reading.images} == {'a 1': 'train', 'b': 'val', 'c': 'test'}
    assert left_out(reading) == {
        ('images', 'listed in test.txt, but without an XML file'): 1,
        ('images', 'in none of the lists of ImageSets'): 1,
    }
    (main / 'train.txt').unlink()
    assert {image.path.stem: image.split for image in read(tmp_path).images} == {
        'a 1': 'train',
        'b': 'val',
        'c': 'test',
    }
    (main / 'val.txt').unlink()
    assert {image.path.stem: image.split for image in read(tmp_path).images} == {'a 1': '', 'b': '', 'c': 'test'}


def test_xml_beside_images_and_folders_for_parts(tmp_path: Path) -> None:
    for split in ('train', 'valid'):  # as Roboflow has it: equal names in both
        write_image(tmp_path / split / '1.jpg')
        write_text(tmp_path / split / '1.xml', voc_xml([('cat', (1, 1, 9, 9))]))
    assert [(image.path.parent.name, image.split) for image in read(tmp_path).images] == [
        ('train', 'train'),
        ('valid', 'val'),
    ]


def test_equal_names_in_folders_that_mirror_each_other(tmp_path: Path) -> None:
    for folder in ('day', 'night'):
        write_image(tmp_path / 'images' / folder / '1.jpg')
        write_text(tmp_path / 'annotations' / folder / '1.xml', voc_xml([(folder, (1, 1, 9, 9))]))
    reading = read(tmp_path)
    assert {image.path.parent.name: image.boxes[0].label for image in reading.images} == {
        'day': 'day',
        'night': 'night',
    }


def test_two_images_that_fit_equally_are_not_guessed(tmp_path: Path) -> None:
    write_image(tmp_path / 'x' / 'a.jpg')
    write_image(tmp_path / 'y' / 'a.png')
    write_text(tmp_path / 'Annotations' / 'a.xml', voc_xml([('cat', (1, 1, 9, 9))]))
    assert left_out(read(tmp_path)) == {('images', 'several images of that name'): 1}
    text = voc_xml([('cat', (1, 1, 9, 9))]).replace('<annotation>', '<annotation><filename>a.png</filename>')
    write_text(tmp_path / 'Annotations' / 'a.xml', text)
    assert [image.path.name for image in read(tmp_path).images] == ['a.png']


def test_classes_are_sorted_by_value_or_as_a_label_map_has_them(tmp_path: Path) -> None:
    one_image(tmp_path, voc_xml([(name, (1, 1, 9, 9)) for name in ('10', '9', 'b', 'a')]))
    assert read(tmp_path).classes == ('9', '10', 'a', 'b')
    write_text(
        tmp_path / 'labelmap.txt', '# label:color_rgb:parts:actions\nbackground:0,0,0::\nb:1,2,3::\nc:::\n9:::\n'
    )
    assert read(tmp_path).classes == ('b', 'c', '9', '10', 'a')


def test_names_that_differ_by_their_letters_are_told(tmp_path: Path) -> None:
    reading = read(one_image(tmp_path, voc_xml([('Cat', (1, 1, 9, 9)), ('cat', (1, 1, 9, 9))])))
    assert "'Cat' and 'cat' are different classes, by their letters" in reading.account.remarks


def test_several_sets_and_no_image_are_refused(tmp_path: Path) -> None:
    for year in ('VOC2007', 'VOC2012'):
        one_image(tmp_path / year, voc_xml([('cat', (1, 1, 9, 9))]))
        write_text(tmp_path / year / 'ImageSets' / 'Main' / 'train.txt', 'a')
    with pytest.raises(
        InputError, match=r'several sets of Pascal VOC, with lists in VOC2007/.*VOC2012/ImageSets/Main; name one'
    ):
        read(tmp_path)
    for path in (tmp_path / 'VOC2007').rglob('*.jpg'):
        path.unlink()
    with pytest.raises(InputError, match='1 of 1 images would be left out: no image of that name'):
        check_reading(read(tmp_path / 'VOC2007'))
