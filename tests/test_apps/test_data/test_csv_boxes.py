"""A CSV of boxes: the header says what the columns are, and in which unit; nothing is guessed."""

from __future__ import annotations

from pathlib import Path

import pytest
from form_sets import boxes_of, left_out, write_image, write_text

from mmdet_iouquery.apps.data.csv_boxes import is_boxes, read_csv
from mmdet_iouquery.apps.data.folder import Folder
from mmdet_iouquery.apps.data.reading import Reading
from mmdet_iouquery.errors import InputError

BOX = (10.0, 20.0, 40.0, 20.0)  # of an image of 100 x 50 px


def read(root: Path, text: str, encoding: str = 'utf-8') -> Reading:
    write_image(root / 'images' / 'a.jpg')
    file = write_text(root / 'boxes.csv', text, encoding)
    return read_csv(Folder(root), [file])


HEADERS = {
    'filename,width,height,class,xmin,ymin,xmax,ymax': 'a.jpg,100,50,cat,10,20,50,40',
    'filename,width,height,class,xmin_rel,ymin_rel,xmax_rel,ymax_rel': 'a.jpg,100,50,cat,.1,.4,.5,.8',
    'image_path,x1,y1,x2,y2,label': '/home/me/images/a.jpg,10,20,50,40,cat',
    'Image;Label;X;Y;W;H': 'a.jpg;cat;10;20;40;20',
    'image\tx\ty\twidth\theight\timage_width\timage_height\tclass': 'a.jpg\t10\t20\t40\t20\t100\t50\tcat',
    'image,name,bbox_x,bbox_y,bbox_width,bbox_height': 'a.jpg,cat,10,20,40,20',
    'image,class,x_center (px),y_center (px),width (px),height (px)': 'a.jpg,cat,30,30,40,20',
    'image,class,cx_norm,cy_norm,w_norm,h_norm': 'a.jpg,cat,.3,.6,.4,.4',
    'ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsGroupOf': 'a,x,cat,1,.1,.5,.4,.8,0',
    'file,category,left,top,right,bottom': 'images\\a.jpg,cat,10,20,50,40',
}


@pytest.mark.parametrize('header', HEADERS)
def test_headers_that_are_understood(tmp_path: Path, header: str) -> None:
    reading = read(tmp_path, f'{header}\n{HEADERS[header]}\n')
    assert boxes_of(reading) == {'a.jpg': [('cat', BOX)]}
    assert is_boxes(tmp_path / 'boxes.csv')


@pytest.mark.parametrize(
    'header',
    [
        'a.jpg,10,20,50,40,cat',  # none
        'image,class,bbox',  # in which order?
        'image,class,xmin_rel,ymin_rel,xmax,ymax',  # in which unit?
        'image,xmin,ymin,xmax,ymax',
        'class,xmin,ymin,xmax,ymax',
    ],
)
def test_headers_that_leave_something_open_are_refused(tmp_path: Path, header: str) -> None:
    with pytest.raises(
        InputError, match='does not say where image, class and box are, in one unit; write a header such as'
    ):
        read(tmp_path, header + '\n')
    assert not is_boxes(tmp_path / 'boxes.csv')


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        (
            'image,class,xmin,ymin,xmax,ymax\na.jpg,cat,.1,.4,.5,.8',
            r'1 of 1 boxes .* between 0 and 1.*\(xmin_rel, \.\.\.\)',
        ),
        (
            'image,class,xmin_rel,ymin_rel,xmax_rel,ymax_rel\na.jpg,cat,10,20,50,40',
            'shares by their names, but 1 of 1 boxes',
        ),
    ],
)
def test_a_unit_that_the_numbers_contradict_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(tmp_path, text)


def test_what_was_understood_is_told(tmp_path: Path) -> None:
    reading = read(tmp_path, 'image,class,x,y,w,h\na.jpg,cat,10,20,40,20')
    assert reading.account.remarks == ['boxes.csv: boxes are x, y, w, h, taken for sides in px']


def test_rows_that_cannot_be_read_are_left_out_and_told(tmp_path: Path) -> None:
    rows = ['a.jpg,cat,10,20,50,40', '', 'a.jpg,cat,x,20,50,40', ',cat,1,2,3,4', 'a.jpg,,1,2,3,4', 'b.jpg,cat,1,2,3,4']
    rows += ['a.jpg,cat,10,20,50,40', 'a.jpg,cat,10', 'a.jpg,dog,5,5,5,9', '"a.jpg","my, dog",1,2,3,4', 'c.jpg,,,,,']
    for name in ('c', 'd'):
        write_image(tmp_path / 'images' / f'{name}.jpg')
    reading = read(tmp_path, '\ufeff' + '\r\n'.join(['image,class,xmin,ymin,xmax,ymax', *rows]))
    assert boxes_of(reading) == {'a.jpg': [('cat', BOX), ('my, dog', (1, 2, 2, 2))], 'c.jpg': []}
    assert left_out(reading) == {
        ('boxes', 'a row whose box or size is not made of numbers'): 2,
        ('boxes', 'a row without an image'): 1,
        ('boxes', 'a row without a class'): 1,
        ('boxes', 'written twice'): 1,
        ('boxes', 'without width or height'): 1,
        ('images', 'no image of that name'): 1,
        ('images', 'in no row'): 1,
    }
    first = reading.account.left_out['boxes', 'a row without an image'].first
    assert first == ['boxes.csv row 5']


def test_groups_are_crowds_and_a_column_says_the_part(tmp_path: Path) -> None:
    write_image(tmp_path / 'images' / 'b.jpg')
    rows = [
        'Split,image,class,xmin,ymin,xmax,ymax,iscrowd',
        'TRAIN,a.jpg,cat,1,2,30,40,1',
        'Validation,b.jpg,cat,1,2,30,40,0',
    ]
    reading = read(tmp_path, '\n'.join(rows))
    assert [(image.split, image.boxes[0].crowd) for image in reading.images] == [('train', True), ('val', False)]


def test_a_size_that_is_not_the_images_own_is_told(tmp_path: Path) -> None:
    reading = read(tmp_path, 'filename,width,height,class,xmin,ymin,xmax,ymax\na.jpg,200,100,cat,10,20,50,40')
    assert left_out(reading) == {('images', 'the size in the labels is not that of the image'): 1}
