"""Any form becomes COCO: boxes, files, second calls, and what is said."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

import pytest
from form_sets import (
    BOX_LINE,
    Truth,
    digits_as_voc,
    digits_as_yolo,
    truth_of,
    voc_xml,
    write_image,
    write_text,
    yolo_set,
)

from mmdet_iouquery import CocoSet, find_coco_set, read_data
from mmdet_iouquery.apps.data import coco_files
from mmdet_iouquery.apps.data.coco_files import NOTE
from mmdet_iouquery.apps.data.conversion import find_data
from mmdet_iouquery.apps.data.reading import Tally
from mmdet_iouquery.apps.data.report import describe
from mmdet_iouquery.apps.quickstart.digits import build_digits
from mmdet_iouquery.errors import InputError
from mmdet_iouquery.file_io import checksum

CLASSES = tuple('0123456789')


@pytest.fixture(scope='module')
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp('data') / 'digits'
    return build_digits(root, num_train=8, num_val=4, image_size=96, progress=False)


def assert_close(actual: Truth, expected: Truth, tolerance: float) -> None:
    """Equal names, and boxes that differ by less than so many px."""
    assert actual.keys() == expected.keys()
    for name, boxes in expected.items():
        actual_boxes = actual[name]
        assert [label for label, _ in actual_boxes] == [label for label, _ in boxes]
        for (_, box), (_, other) in zip(actual_boxes, boxes):
            assert box == pytest.approx(other, abs=tolerance), name


def test_digits_in_yolo_form(digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = digits_as_yolo(digits, tmp_path / 'yolo')
    coco = read_data(root)
    out = tmp_path / 'yolo-coco'
    images = root / 'images'
    assert coco == CocoSet(out / 'train.json', images / 'train', out / 'val.json', images / 'val', CLASSES)
    for split, ann_file in (('train', coco.train_ann), ('val', coco.val_ann)):
        # shares of six decimals of 96 px
        assert_close(truth_of(ann_file), truth_of(digits / 'annotations' / f'{split}.json'), 3e-4)
    output = capsys.readouterr().out
    assert (
        f'{root / "data.yaml"}: YOLO, 12 images, 10 classes' in output
        and 'train: 8 images (0 without objects)' in output
    )


def test_digits_in_voc_form(digits: Path, tmp_path: Path) -> None:
    coco = read_data(digits_as_voc(digits, tmp_path / 'voc'))
    assert coco.classes == CLASSES and coco.train_images == coco.val_images == tmp_path / 'voc' / 'JPEGImages'
    for split, ann_file in (('train', coco.train_ann), ('val', coco.val_ann)):
        expected = truth_of(digits / 'annotations' / f'{split}.json')
        assert_close(truth_of(ann_file), {f'{split}{name}': boxes for name, boxes in expected.items()}, 1.0)  # whole px


def test_coco_goes_the_way_it_went(digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert read_data(digits, out=tmp_path / 'out') == find_coco_set(digits)
    assert not (tmp_path / 'out').exists()
    single = tmp_path / 'single'
    shutil.copytree(digits / 'train', single / 'images')
    shutil.copy(digits / 'annotations' / 'train.json', single / 'all.json')
    coco = read_data(single)
    assert coco == find_coco_set(single, tmp_path / 'single-coco') and coco.train_ann.parent == tmp_path / 'single-coco'
    capsys.readouterr()
    assert read_data(single) == coco and 'as COCO already; nothing to do' in capsys.readouterr().out
    coco.val_ann.write_text('mine')
    with pytest.raises(InputError, match=r'val\.json was changed since it was written here'):
        read_data(single)
    assert coco.val_ann.read_text() == 'mine'
    assert read_data(single, out=coco.val_ann.parent) == coco and coco.val_ann.read_text() != 'mine', 'as ever'


def test_coco_is_taken_whatever_lies_beside_it(digits: Path, tmp_path: Path) -> None:
    both = digits_as_yolo(digits, tmp_path / 'both')
    shutil.copytree(digits / 'annotations', both / 'annotations')
    assert read_data(both) == find_coco_set(both)


def test_a_zip_of_a_folder(digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = digits_as_yolo(digits, tmp_path / 'yolo')
    with zipfile.ZipFile(tmp_path / 'packed.zip', 'w') as file:
        for path in sorted(root.rglob('*')):
            file.write(path, Path('set') / path.relative_to(root))
    coco = read_data(tmp_path / 'packed.zip')
    assert coco.train_ann == tmp_path / 'packed-coco' / 'train.json'
    assert truth_of(coco.val_ann) == truth_of(read_data(root).val_ann)
    capsys.readouterr()
    assert read_data(tmp_path / 'packed.zip') == coco
    assert 'as COCO already; nothing to do' in capsys.readouterr().out
    shutil.rmtree(tmp_path / 'packed-unpacked')
    assert read_data(tmp_path / 'packed.zip') == coco


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Ten images of one class, without a validation part."""
    yolo_set(tmp_path / 'small', {f'{number}.jpg': BOX_LINE for number in range(10)})
    return tmp_path / 'small'


def state_of(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()}


def test_a_second_call_writes_nothing_and_says_so(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, before = read_data(small), state_of(small.with_name('small-coco'))
    output = capsys.readouterr().out
    assert 'no validation part: 20% of the images were drawn for it, by classes, with seed 0' in output
    assert read_data(small) == first and state_of(small.with_name('small-coco')) == before
    assert 'small-coco holds' in capsys.readouterr().out
    assert read_data(small.with_name('small-coco')) == first, 'the result stands for what it was made of'


def test_the_folder_of_images_is_in_the_files(small: Path, digits: Path, tmp_path: Path) -> None:
    shutil.copytree(digits / 'train', tmp_path / 'single' / 'images')
    shutil.copy(digits / 'annotations' / 'train.json', tmp_path / 'single' / 'all.json')
    for coco in (read_data(small), read_data(tmp_path / 'single')):
        for file, images in ((coco.train_ann, coco.train_images), (coco.val_ann, coco.val_images)):
            assert json.loads(file.read_text())['info'] == {'image_folder': str(images)}


def test_what_was_made_of_another_set_is_not_written_over(small: Path, tmp_path: Path) -> None:
    read_data(small, out=tmp_path / 'out')
    before = state_of(tmp_path / 'out')
    yolo_set(tmp_path / 'small-2', {f'{number}.jpg': BOX_LINE for number in range(4)})
    with pytest.raises(InputError, match=f'out holds what was made of another set, {small}; name another folder'):
        read_data(tmp_path / 'small-2', out=tmp_path / 'out')
    assert state_of(tmp_path / 'out') == before
    assert read_data(small / 'data.yaml', out=tmp_path / 'out').train_ann.parent == tmp_path / 'out', 'the same set'


def test_a_folder_that_holds_a_set_is_not_written_to(small: Path, digits: Path, tmp_path: Path) -> None:
    """Its name would mean what was written there from then on."""
    before = {path.name for path in digits.iterdir()}
    for _ in range(2):
        with pytest.raises(
            InputError, match=f'{digits} holds a set itself, in the form of COCO; name another folder with'
        ):
            read_data(small, out=digits)
    assert {path.name for path in digits.iterdir()} == before
    single, out = tmp_path / 'single', tmp_path / 'out'
    (single / 'annotations').mkdir(parents=True)
    shutil.copy(digits / 'annotations' / 'train.json', single / 'annotations')
    shutil.copytree(digits / 'train', single / 'train')
    first = read_data(single, out=out)
    (out / NOTE).unlink()  # as a stop between the split and its note leaves it
    assert read_data(single, out=out) == first
    (tmp_path / 'notes').mkdir()
    (tmp_path / 'notes' / 'list.json').write_text('[1]')  # no set
    assert read_data(small, out=tmp_path / 'notes').train_ann == tmp_path / 'notes' / 'train.json'


def test_a_folder_passes_on_what_is_wrong_with_its_only_table(tmp_path: Path) -> None:
    write_image(tmp_path / 'set' / 'a.jpg')
    table = write_text(tmp_path / 'set' / 'labels.csv', 'a.jpg,cat,1,1,9,9\n')
    for source in (tmp_path / 'set', table):
        with pytest.raises(InputError, match=r'labels\.csv: its first row \(a\.jpg, cat, .* does not say where'):
            read_data(source)
    write_text(tmp_path / 'set' / 'more.csv', 'x\n')
    with pytest.raises(InputError, match=r'is no set in a form that is known.* 2 \.csv'):
        read_data(tmp_path / 'set')


def test_names_are_shown_once_and_one_is_no_plural() -> None:
    tally = Tally()
    for name in ['a'] * 4 + ['b']:
        tally.add(name)
    assert str(tally) == "5 ('a', 'b')"
    for name in 'cdef':
        tally.add(name)
    assert str(tally) == "9 ('a', 'b', 'c', 'd', 'e', ...)"
    part = dict(images=1, without_objects=0, boxes=2, crowds=1, boxes_by_class={'cat': 2}, file='f')
    report = dict(source='s', form='YOLO', classes=['cat'], parts=dict(train=part), drawn_with_seed=None)
    text = describe({**report, 'remarks': [], 'changed': [], 'left_out': []})
    assert text.startswith(
        's: YOLO, 1 image, 1 class, 2 boxes\n  train: 1 image (0 without objects), 2 boxes, 1 crowd ('
    )


@pytest.mark.parametrize('change', ['label', 'image', 'seed', 'lost file', 'description'])
def test_what_has_changed_is_read_anew(small: Path, change: str) -> None:
    before = [truth_of(path) for path in vars(read_data(small)).values() if str(path).endswith('.json')]
    seed = 0
    if change == 'label':
        write_text(small / 'labels' / '3.txt', '0 0.5 0.5 0.25 0.4')
    elif change == 'image':
        write_image(small / 'images' / 'new.jpg')
    elif change == 'seed':
        seed = 1
    elif change == 'description':
        write_text(small / 'data.yaml', 'train: images\nnames: [one, another]\n')
    else:
        small.with_name('small-coco').joinpath('val.json').unlink()
    coco = read_data(small, seed=seed)
    now = [truth_of(coco.train_ann), truth_of(coco.val_ann)]
    assert (now == before) == (change == 'lost file')


def names_of(path: Path) -> set[str]:
    return {image['file_name'] for image in json.loads(path.read_text())['images']}


def test_a_drawn_split_is_kept_as_the_set_grows(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coco = read_data(small)
    train, val = names_of(coco.train_ann), names_of(coco.val_ann)
    gone = min(val)
    for path in (small / 'images' / gone, small / 'labels' / f'{Path(gone).stem}.txt'):
        path.unlink()
    for number in range(16):
        write_image(small / 'images' / f'0new{number}.jpg')
        write_text(small / 'labels' / f'0new{number}.txt', BOX_LINE)
    assert read_data(small) == coco
    assert 'images that keep the split of an earlier draw: 9\n' in capsys.readouterr().out
    now = names_of(coco.train_ann), names_of(coco.val_ann)
    assert train < now[0] and val - {gone} < now[1] and [len(names) for names in now] == [20, 5]
    before = state_of(coco.train_ann.parent)
    assert read_data(small) == coco and state_of(coco.train_ann.parent) == before
    read_data(small, seed=1)
    assert 'earlier draw' not in capsys.readouterr().out, 'another seed draws anew'


def test_a_single_coco_json_keeps_its_split_as_it_grows(digits: Path, tmp_path: Path) -> None:
    """New ids have smaller hashes here than those that were chosen."""
    single, content = tmp_path / 'single', json.loads((digits / 'annotations' / 'train.json').read_text())
    shutil.copytree(digits / 'train', single / 'images')
    content['images'].sort(key=lambda image: sha256(str(image['id']).encode()).hexdigest(), reverse=True)
    splits = []
    for count in (5, 8):
        images = content['images'][:count]
        ids = {image['id'] for image in images}
        annotations = [entry for entry in content['annotations'] if entry['image_id'] in ids]
        write_text(single / 'all.json', json.dumps({**content, 'images': images, 'annotations': annotations}))
        coco = read_data(single)
        splits.append([names_of(coco.train_ann), names_of(coco.val_ann)])
    assert [[len(names) for names in split] for split in splits] == [[4, 1], [6, 2]]
    assert all(before < now for before, now in zip(*splits))


def test_a_check_comes_before_anything_is_written(small: Path) -> None:
    seen = []

    def check(sums: Mapping[str, str], images: int | None) -> None:
        seen.append((sums, images))
        if len(seen) == 1:
            raise InputError('not these')

    out = small.with_name('small-coco')
    with pytest.raises(InputError, match='not these'):
        read_data(small, check=check)
    assert not out.exists()
    read_data(small, check=check)
    sums = {str(out / f'{split}.json'): checksum(out / f'{split}.json') for split in ('train', 'val')}
    assert seen == [(sums, 10), (sums, 10), (sums, None)]


def test_files_that_are_not_ours_stay(small: Path) -> None:
    out = small.with_name('mine')
    write_text(out / 'val.json', 'mine')
    with pytest.raises(InputError, match=r'mine/val\.json was not written here, and is not written over'):
        read_data(small, out=out)
    assert sorted(os.listdir(out)) == ['val.json'] and (out / 'val.json').read_text() == 'mine'

    coco = read_data(small)
    text = coco.train_ann.read_text() + ' '
    coco.train_ann.write_text(text)
    with pytest.raises(InputError, match=r'train\.json was changed since it was written here'):
        read_data(small)
    assert coco.train_ann.read_text() == text


def test_a_part_that_is_gone_leaves_no_file(small: Path) -> None:
    write_image(small / 'test' / 'images' / 'x.jpg')
    write_text(small / 'test' / 'labels' / 'x.txt', BOX_LINE)
    write_text(small / 'data.yaml', 'train: images\ntest: test/images\nnames: [cat, dog]')
    out = read_data(small).train_ann.parent
    assert [*truth_of(out / 'test.json')] == ['x.jpg']
    write_text(small / 'data.yaml', 'train: images\nnames: [cat, dog]')
    read_data(small)
    assert not (out / 'test.json').exists()


def test_a_set_that_fails_the_check_is_checked_again(small: Path) -> None:
    """What it says is the check's own; and the files stay ours."""
    write_text(small / 'data.yaml', 'train: images\nval: empty\nnames: [cat, dog]')
    write_image(small / 'empty' / 'e.jpg')
    for _ in range(2):
        with pytest.raises(InputError, match=r'small-coco/val\.json: none of its 0 annotations is a target'):
            read_data(small)
    write_text(small / 'empty' / 'e.txt', BOX_LINE)
    assert [*truth_of(read_data(small).val_ann)] == ['e.jpg']


@pytest.mark.parametrize('stop_at', range(1, 6))
def test_a_stop_at_any_write_is_made_good(small: Path, stop_at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a note, two files, the note again, and once more when all is checked; on files of an earlier call."""
    read_data(small)
    write_text(small / 'labels' / '3.txt', '0 0.5 0.5 0.25 0.4')
    write, written = coco_files.write_text, []

    def stop(path: Path, text: str) -> None:
        written.append(path.name)
        if len(written) == stop_at:
            raise KeyboardInterrupt
        write(path, text)

    with monkeypatch.context() as patch:
        patch.setattr(coco_files, 'write_text', stop)
        with pytest.raises(KeyboardInterrupt):
            read_data(small)
    coco = read_data(small)
    expected = read_data(small, out=small.with_name('afresh'))
    assert truth_of(coco.train_ann) == truth_of(expected.train_ann)
    assert truth_of(coco.val_ann) == truth_of(expected.val_ann)
    assert coco.train_ann.parent != expected.train_ann.parent


def test_corners_in_place_of_sides_are_told_by_the_check(tmp_path: Path) -> None:
    for number in range(4):
        write_image(tmp_path / 'set' / f'{number}.jpg')
    rows = [f'{number}.jpg,cat,{40 + number},20,90,45' for number in range(4)]
    write_text(tmp_path / 'set' / 'boxes.csv', '\n'.join(['image,class,x,y,w,h', *rows]))
    with pytest.raises(InputError, match='are these x1, y1, x2, y2'):
        read_data(tmp_path / 'set')


def test_all_difficult_is_told_by_the_check(tmp_path: Path) -> None:
    for name in 'ab':
        write_image(tmp_path / 'set' / f'{name}.jpg')
        write_text(tmp_path / 'set' / f'{name}.xml', voc_xml([('cat', (1, 1, 9, 9))], more='<difficult>1</difficult>'))
    with pytest.raises(InputError, match=r'none of its 1 annotations is a target \(1 marked iscrowd'):
        read_data(tmp_path / 'set')


def test_images_outside_the_folder_count_as_input(tmp_path: Path) -> None:
    description = yolo_set(tmp_path / 'elsewhere', {f'{number}.jpg': BOX_LINE for number in range(4)})
    here = write_text(tmp_path / 'here' / 'data.yaml', f'train: {description.parent}/images\nnames: [cat, dog]')
    coco = read_data(here)
    assert coco.train_images == tmp_path / 'elsewhere' / 'images' and coco.train_ann.parent == tmp_path / 'here-coco'
    before = truth_of(coco.train_ann) | truth_of(coco.val_ann)
    for number in range(4):
        write_text(tmp_path / 'elsewhere' / 'labels' / f'{number}.txt', '0 0.5 0.5 0.25 0.4')
    coco = read_data(here)
    assert truth_of(coco.train_ann) | truth_of(coco.val_ann) != before


def test_masks_without_boxes(tmp_path: Path) -> None:
    write_image(tmp_path / 'set' / 'images' / 'a.jpg')
    write_image(tmp_path / 'set' / 'images' / 'b.jpg')
    content = {
        'images': [dict(id=i, file_name=f'{name}.jpg', width=100, height=50) for i, name in enumerate('ab')],
        'annotations': [
            dict(id=i, image_id=i - 1, category_id=1, segmentation=[[10, 20, 30, 20, 30, 40]]) for i in (1, 2)
        ],
        'categories': [dict(id=1, name='cat')],
    }
    write_text(tmp_path / 'set' / 'masks.json', json.dumps(content))
    data = find_data(tmp_path / 'set')
    actual = truth_of(data.coco.train_ann) | truth_of(data.coco.val_ann)
    assert actual == {name: [('cat', [10, 20, 20, 20])] for name in ('a.jpg', 'b.jpg')}
    assert data.report['form'] == 'COCO without boxes'


def test_the_report_counts_everything(tmp_path: Path) -> None:
    labels = {
        'a.jpg': BOX_LINE + '1 0.1 0.2 0.1 0.1',
        'b.jpg': BOX_LINE + '1 0.1 0.2 0.1 0.1\n9 0.5 0.5 0.1 0.1',
        'c.jpg': '',
    }
    yolo_set(tmp_path / 'set', labels)
    report = find_data(tmp_path / 'set').report
    assert report['form'] == 'YOLO' and report['classes'] == ['cat', 'dog'] and report['drawn_with_seed'] == 0
    sums = {
        key: sum(part[key] for part in report['parts'].values())
        for key in ('images', 'without_objects', 'boxes', 'crowds')
    }
    assert sums == {'images': 3, 'without_objects': 1, 'boxes': 4, 'crowds': 0}
    assert report['parts']['val']['boxes_by_class'] == {'cat': 0, 'dog': 2}
    assert report['left_out'][0]['reason'] == 'class 9, which has no name'
    assert report['left_out'][0]['first'] == ['labels/b.txt line 3']
    assert [warning for warning in report['warnings'] if "have no box: 'cat'" in warning]
    assert json.loads((tmp_path / 'set-coco' / 'iouquery-data.json').read_text())['checked'] is True


def test_none_of_the_forms_says_what_was_looked_for_and_found(tmp_path: Path) -> None:
    root = tmp_path / 'set'
    write_image(root / 'photos' / 'a.jpg')
    write_text(root / 'notes.md', 'hello')
    with pytest.raises(InputError) as error:
        read_data(root)
    for fact in (
        str(root),
        'data.yaml',
        'Annotations/*.xml',
        'a CSV',
        'Label Studio',
        'CVAT',
        '1 .jpg',
        '1 .md',
        'photos/',
    ):
        assert fact in str(error.value)
    assert os.listdir(tmp_path) == ['set']
    (tmp_path / 'empty').mkdir()
    with pytest.raises(InputError, match='It holds no file'):
        read_data(tmp_path / 'empty')
    with pytest.raises(InputError, match=r'no folder or file .*gone; name a set of images'):
        read_data(tmp_path / 'gone')
    with pytest.raises(InputError, match=r'notes\.md is no file that labels are read from'):
        read_data(root / 'notes.md')


def test_several_forms_are_not_guessed(digits: Path, tmp_path: Path) -> None:
    root = digits_as_yolo(digits, tmp_path / 'set')
    write_text(root / 'boxes.csv', 'image,class,xmin,ymin,xmax,ymax\n')
    with pytest.raises(InputError, match=r'in several forms: YOLO \(data\.yaml\); CSV \(boxes\.csv\); give the path'):
        read_data(root)
    assert read_data(root / 'data.yaml').classes == CLASSES


def test_broken_coco_says_what_is_wrong_with_it(tmp_path: Path) -> None:
    write_image(tmp_path / 'set' / 'a.jpg')
    write_text(tmp_path / 'set' / 'train.json', '{"images": [')
    with pytest.raises(InputError, match=r'train\.json ends in mid-air'):
        read_data(tmp_path / 'set')


def test_a_folder_that_cannot_be_written_is_told(small: Path) -> None:
    write_text(small.with_name('file'), '')
    with pytest.raises(InputError, match=r'is the set itself, which is not written over'):
        read_data(small, out=small)
    with pytest.raises(InputError, match=r'cannot write to the folder .*; name another with iouquery data --out'):
        read_data(small, out=small.with_name('file') / 'out')
