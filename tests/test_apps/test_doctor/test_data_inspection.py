"""The data doctor: a set with one fault of each kind, and what is said of each."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from image_files import encoded, random_image, turned
from mmengine.config import Config

from mmdet_iouquery.apps.doctor import box_statistics
from mmdet_iouquery.apps.doctor import command as doctor
from mmdet_iouquery.apps.doctor import data_inspection as inspection
from mmdet_iouquery.apps.doctor.box_statistics import Resizing
from mmdet_iouquery.apps.doctor.data_findings import Limits, findings, limits_of
from mmdet_iouquery.apps.doctor.data_inspection import inspect, on_error, resizing
from mmdet_iouquery.apps.doctor.data_report import exit_status, render, to_json
from mmdet_iouquery.apps.doctor.duplicates import alike, repeated, same
from mmdet_iouquery.apps.doctor.image_probe import difference_hash, probe
from mmdet_iouquery.datasets.coco.checks import read_sets

CLASSES = ('cat', 'dog')


class Split:
    """A set on disk, made image by image."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.content: dict[str, list[dict[str, Any]]] = dict(
            images=[], annotations=[], categories=[dict(id=i + 1, name=name) for i, name in enumerate(CLASSES)]
        )
        (folder / 'images').mkdir(parents=True)

    def add(self, name: str, data: bytes, boxes: list[Any] = [[4, 4, 20, 20]], size: Any = (48, 32)) -> None:  # noqa: B006
        """One image; a box is x, y, w, h, with more fields of its annotation behind it if need be."""
        (self.folder / 'images' / name).write_bytes(data)
        number = len(self.content['images']) + 1
        self.content['images'].append(dict(id=number, file_name=name, width=size[0], height=size[1]))
        for box in boxes:
            bbox, fields = (box, {}) if not isinstance(box[-1], dict) else (box[:-1], box[-1])
            entry = dict(id=len(self.content['annotations']) + 1, image_id=number, category_id=1, bbox=bbox, iscrowd=0)
            self.content['annotations'].append({**entry, 'area': bbox[2] * bbox[3], **fields})

    def write(self) -> None:
        (self.folder / 'ann.json').write_text(json.dumps(self.content))


@pytest.fixture
def splits(tmp_path: Path) -> tuple[Split, Split]:
    """A sound training and validation set of one image each."""
    train, val = Split(tmp_path / 'train'), Split(tmp_path / 'val')
    train.add('t.png', encoded(random_image(seed=100), 'PNG'))
    val.add('v.png', encoded(random_image(seed=101), 'PNG'), [[4, 4, 20, 20], [1, 1, 9, 9, dict(category_id=2)]])
    return train, val


def config(root: Path, **model: Any) -> Config:
    def dataset(split: str, *load: dict[str, Any]) -> dict[str, Any]:
        return dict(
            type='CocoDataset',
            data_root=str(root),
            ann_file=f'{split}/ann.json',
            data_prefix=dict(img=f'{split}/images/'),
            metainfo=dict(classes=CLASSES),
            pipeline=[*load, dict(type='Resize', scale=(96, 96), keep_ratio=False)],
        )

    train = dataset('train', dict(type='LoadImageFromFile', _scope_='mmdet_iouquery', on_error='skip'))
    val = dataset('val', dict(type='LoadImageFromFile'), dict(type='CheckImage'))
    head = dict(type='RTDETRHead', num_classes=2, query_selector=dict(num_queries=7), denoising=dict(num_denoising=5))
    return Config(
        dict(
            model=dict(bbox_head={**head, **model}),
            train_dataloader=dict(dataset=train),
            val_dataloader=dict(dataset={**val, 'test_mode': True}),
        )
    )


def found_in(cfg: Config, level: str | None = None, **options: Any) -> list[tuple[str, str, str]]:
    """(level, where, text) of all findings."""
    for split in ('train', 'val'):
        assert Path(cfg.train_dataloader.dataset.data_root, split, 'ann.json').is_file()
    sets = inspect(read_sets(cfg), workers=0, progress=False, **options)
    return [(f.level, f.where, f.text) for f in findings(sets, limits_of(cfg.model)) if level in (None, f.level)]


def test_a_sound_set_has_one_remark_only(splits: tuple[Split, Split], tmp_path: Path) -> None:
    """A class that is not in the training set is all there is to say."""
    for split in splits:
        split.write()
    assert found_in(config(tmp_path)) == [('warning', 'train', "1 of 2 classes have no box: 'dog'")]


CUT = encoded(random_image(seed=3), 'JPEG')[:-80]
SOUND = encoded(random_image(seed=4), 'JPEG')


@pytest.mark.parametrize(
    ('split', 'data', 'size', 'expected', 'effect'),
    [
        ('train', CUT, (48, 32), ('warning', '1 image cannot be used'), 'takes another image instead'),
        ('val', CUT, (48, 32), ('error', '1 image cannot be used'), 'evaluation stops there'),
        ('val', SOUND, (50, 32), ('error', '1 image cannot be used'), 'evaluation stops there'),
        (
            'train',
            turned(random_image(seed=5), 6),
            (48, 32),
            ('note', '1 image annotated as stored, though EXIF data say to turn them'),
            'taken as stored',
        ),
        (
            'train',
            turned(random_image(seed=5), 6),
            (32, 48),
            ('note', '1 image annotated upright, turned by EXIF data'),
            'turned upright',
        ),
        (
            'train',
            turned(random_image(seed=5), 3),
            (48, 32),
            ('warning', '1 image to be turned by EXIF data, where the size does not tell how they were annotated'),
            'look at one',
        ),
        (
            'train',
            encoded(random_image(seed=5).convert('L'), 'JPEG'),
            (48, 32),
            ('note', '1 image stored otherwise: grey'),
            'the same in all three channels',
        ),
        (
            'train',
            encoded(random_image(seed=5).convert('CMYK'), 'JPEG'),
            (48, 32),
            ('note', '1 image stored otherwise: CMYK'),
            'converted',
        ),
        (
            'train',
            cv2.imencode('.png', np.asarray(random_image(seed=5)).astype(np.uint16) * 257)[1].tobytes(),
            (48, 32),
            ('note', '1 image stored otherwise: 16 bits'),
            'scaled to 8',
        ),
        (
            'train',
            SOUND[:-2],
            (48, 32),
            ('warning', '1 image without an end marker, but with every pixel'),
            'used as they are',
        ),
        (
            'val',
            SOUND[:-2],
            (48, 32),
            ('error', '1 image without an end marker, but with every pixel'),
            r"printf '\xff\xd9' >> FILE",
        ),
        (
            'train',
            encoded(
                random_image(seed=5).convert('P'), 'GIF', save_all=True, append_images=[random_image().convert('P')]
            ),
            (48, 32),
            ('note', '1 image stored otherwise: animated'),
            'the first frame',
        ),
    ],
)
def test_files(
    splits: tuple[Split, Split], tmp_path: Path, split: str, data: bytes, size: Any, expected: Any, effect: str
) -> None:
    splits[split == 'val'].add('odd.img', data, [[1, 1, 8, 8, dict(category_id=2)]], size)
    for each in splits:
        each.write()
    cfg = config(tmp_path)
    sets = inspect(read_sets(cfg), workers=0, progress=False)
    (finding,) = [f for f in findings(sets, limits_of(cfg.model)) if f.examples]
    assert (finding.level, finding.text) == expected and finding.where == split
    assert effect in finding.effect and len(finding.examples) == 1 and 'odd.img' in finding.examples[0]


def test_16_bits_of_which_12_are_used(splits: tuple[Split, Split], tmp_path: Path) -> None:
    deep = np.asarray(random_image(seed=5)).astype(np.uint16) * 16
    splits[0].add('camera.png', cv2.imencode('.png', deep)[1].tobytes(), [[1, 1, 8, 8, dict(category_id=2)]])
    for split in splits:
        split.write()
    by_text = found_in(config(tmp_path))
    assert ('warning', 'train', '1 image of 16 bits that use a small part of them') in by_text
    assert ('note', 'train', '1 image stored otherwise: 16 bits') in by_text


def test_damage_that_only_the_decoder_notices(splits: tuple[Split, Split], tmp_path: Path) -> None:
    data = bytearray(encoded(random_image(320, 240, seed=6, blur=1), 'JPEG', quality=90))
    data[len(data) // 2 : len(data) // 2 + 40] = b'\x5a' * 40
    splits[0].add('garbled.jpg', bytes(data), size=(320, 240))
    for split in splits:
        split.write()
    cfg = config(tmp_path)
    (finding,) = [
        f for f in findings(inspect(read_sets(cfg), workers=0, progress=False), limits_of(cfg.model)) if f.examples
    ]
    assert (finding.level, finding.text) == ('warning', '1 image with damage in the compressed data')
    assert 'garbled.jpg: Corrupt JPEG data' in finding.examples[0]


def test_an_unchecked_pipeline_makes_bad_files_an_error(splits: tuple[Split, Split], tmp_path: Path) -> None:
    splits[0].add('cut.jpg', CUT)
    splits[0].add('stored.jpg', turned(random_image(seed=5), 6))
    for split in splits:
        split.write()
    cfg = config(tmp_path)
    cfg.train_dataloader.dataset.pipeline[0] = dict(type='mmdet.LoadImageFromFile')
    errors = found_in(cfg, 'error')
    assert [text[:40] for _, _, text in errors] == [
        '1 image cannot be used',
        '1 image annotated as stored, though EXIF',
    ]


def test_a_training_set_of_unusable_images_alone_is_an_error(splits: tuple[Split, Split], tmp_path: Path) -> None:
    (tmp_path / 'train/images/t.png').write_bytes(b'')
    for split in splits:
        split.write()
    assert ('error', 'train', '1 image cannot be used') in found_in(config(tmp_path))


BOXES = [
    ([1, 1, 0.5, 9], 'without an area, under 1 px, NaN or outside the image', 'note', 'error'),
    ([50, 1, 9, 9], 'without an area, under 1 px, NaN or outside the image', 'note', 'error'),
    ([1, 1, 9, 9, dict(ignore=1)], 'marked ignore', 'note', 'error'),
    ([1, 1, 9, 9, dict(iscrowd=1)], 'marked iscrowd', 'note', 'note'),
    ([40, 1, 12, 9], 'more than 2 px over the border of the image', 'note', 'note'),
    ([0, 0, 48, 32], 'over the whole image', 'note', 'note'),
    ([4, 4, 20, 20], 'repeated exactly, class and all', 'warning', 'warning'),
    ([4, 4, 20, 1.2], 'with a side under 4 px at 96 x 96', 'note', 'note'),
]


@pytest.mark.parametrize(('box', 'text', 'in_train', 'in_val'), BOXES)
def test_boxes(
    splits: tuple[Split, Split], tmp_path: Path, box: list[Any], text: str, in_train: str, in_val: str
) -> None:
    for split, name in zip(splits, 'ab'):
        split.add(f'{name}.png', encoded(random_image(seed=ord(name)), 'PNG'), [[4, 4, 20, 20], box])
        split.write()
    about_boxes = [f for f in found_in(config(tmp_path)) if 'box (' in f[2]]
    assert [(level, where) for level, where, _ in sorted(about_boxes, key=lambda f: f[1])] == [
        (in_train, 'train'),
        (in_val, 'val'),
    ]
    for _, where, message in about_boxes:
        count = 3 if where == 'train' else 4
        assert message == f'1 box ({1 / count:.1%}) {text}'


def test_crowded_images_and_those_without_a_box(splits: tuple[Split, Split], tmp_path: Path) -> None:
    train, val = splits
    for split, counts in ((train, (6, 8)), (val, (8, 101))):
        for count in counts:
            boxes = [[k % 30, k // 30, 6 + k % 7, 9] for k in range(count)]
            split.add(f'{count}.png', encoded(random_image(seed=count), 'PNG'), boxes)
    train.add('empty.png', encoded(random_image(seed=77), 'PNG'), [])
    for split in splits:
        split.write()
    texts = {text: level for level, _, text in found_in(config(tmp_path))}
    assert texts['2 images with more boxes than num_denoising=5'] == 'note'
    assert texts['1 image with more boxes than num_queries=7'] == 'warning'
    assert texts['2 images with more boxes than num_queries=7'] == 'warning'
    assert texts['1 image with more boxes than 100'] == 'warning'
    assert texts['1 image without a box'] == 'note'


def test_images_in_both_sets(splits: tuple[Split, Split], tmp_path: Path) -> None:
    train, val = splits
    scene = random_image(96, 64, seed=9)
    train.add('scene.png', encoded(scene, 'PNG'), size=(96, 64))
    train.add('again.png', encoded(scene, 'PNG'), size=(96, 64))
    train.add('name.png', encoded(random_image(seed=12), 'PNG'))
    val.add('copy.png', encoded(scene, 'PNG'), size=(96, 64))
    val.add('smaller.jpg', encoded(scene.resize((48, 32)), 'JPEG', quality=60))
    val.add('name.png', encoded(random_image(seed=13), 'PNG'))
    for split in splits:
        split.write()
    sets = inspect(read_sets(config(tmp_path)), workers=0, progress=False)
    by_text = {f.text: (f.level, f.where, f.examples) for f in findings(sets, Limits(None, None))}
    assert by_text['1 image of val found in train too, byte for byte'] == (
        'error',
        'train, val',
        ('scene.png = copy.png',),
    )
    assert by_text['1 image of val that look like one of train'] == (
        'warning',
        'train, val',
        ('scene.png ~ smaller.jpg',),
    )
    assert by_text['1 image of val named like one of train, with another content'][2] == ('name.png',)
    assert by_text['1 image the same as another of the set'][2] == ('scene.png = again.png',)


def test_pairs() -> None:
    assert same(['a', '', 'b', 'a'], ['b', '', 'a', 'c']) == [(2, 0), (0, 2)]
    assert list(repeated([b'a', b'', b'a', b'', b'a'])) == [(0, 2), (0, 4)]
    code = 0x123456789ABCDEF0
    three_apart, four_apart = code ^ (1 | 1 << 17 | 1 << 40), code ^ (1 | 1 << 17 | 1 << 40 | 1 << 63)
    assert alike([None, four_apart, three_apart, code ^ 1], [code, None]) == [(3, 0)]
    assert alike([three_apart], [code]) == [(0, 0)]
    assert alike([four_apart], [code]) == []


def test_the_difference_hash_bears_scaling_and_saving_but_no_other_image() -> None:
    codes = []
    for seed in range(12):
        whole = np.asarray(random_image(320, 240, seed=seed, blur=20))
        small = cv2.imdecode(
            np.frombuffer(encoded(random_image(320, 240, seed=seed, blur=20).resize((97, 71)), 'JPEG'), 'u1'), 1
        )
        codes.append((difference_hash(whole[..., ::-1]), difference_hash(small)))
        assert bin(codes[-1][0] ^ codes[-1][1]).count('1') <= 3
    distances = [bin(a ^ b).count('1') for i, (a, _) in enumerate(codes) for k, (_, b) in enumerate(codes) if i != k]
    assert min(distances) > 10
    assert difference_hash(np.full((9, 9, 3), 200, np.uint8)) is None


def test_numbers_by_hand(splits: tuple[Split, Split], tmp_path: Path) -> None:
    train, _ = splits
    train.add(
        'wide.png', encoded(random_image(200, 50), 'PNG'), [[0, 0, 100, 40], [0, 0, 200, 50], [9, 9, 9, 9]], (200, 50)
    )
    for split in splits:
        split.write()
    (inspected, _) = inspect(read_sets(config(tmp_path)), workers=0, progress=False)
    numbers = box_statistics.statistics(inspected.checked, Resizing(96, 96, False))
    assert numbers['width'] == (48, 124, 200) and numbers['aspect'] == (1.5, 2.75, 4)
    assert numbers['boxes_per_image'] == (1, 2, 3)
    assert numbers['box_shares'] == dict(small=0.5, medium=0.25, large=0.25)
    # 20 x 20 becomes 40 x 60; 100 x 40 becomes 48 x 76.8; 9 x 9 becomes 4.32 x 17.28; the whole is 96 x 96
    assert numbers['network_box_shares'] == dict(small=0.25, medium=0.5, large=0.25)
    assert numbers['shorter_side_at_network'] == pytest.approx((4.32, 44, 96))


def test_what_resize_makes_of_sides_is_what_mmcv_makes() -> None:
    from mmcv import rescale_size

    sizes = np.array([[640, 480], [480, 640], [100, 900]])
    factors = Resizing(1333, 800, True).factors(sizes)
    for (width, height), (x, y) in zip(sizes, factors):
        assert x == y
        expected = rescale_size((int(width), int(height)), (1333, 800))
        assert (round(width * x), round(height * y)) == expected
    assert Resizing(320, 160, False).factors(np.array([[640, 80]])).tolist() == [[0.5, 2.0]]


def test_pipelines_and_models_are_understood() -> None:
    ours, check = dict(type='LoadImageFromFile', _scope_='mmdet_iouquery'), dict(type='mmdet.CheckImage')
    steps = {
        'skip': [dict(ours, on_error='skip'), dict(type='LoadCheckedImage', on_error='skip')],
        'raise': [ours, dict(type='LoadCheckedImage'), dict(type='mmdet_iouquery.LoadImageFromFile'), check],
        'unchecked': [{}, dict(type='LoadImageFromFile'), dict(type='LoadImageFromFile', _scope_='mmdet')],
    }
    for expected, several in steps.items():
        assert {on_error([step]) for step in several} == {expected}
    assert resizing([dict(type='Resize', scale=64), check]) == (64, 64, False)
    assert resizing([dict(type='AntialiasedResize', scale=(32, 64)), check]) == (32, 64, False)
    assert resizing([dict(type='RandomChoiceResize', scales=[(1, 2)])]) is None
    assert limits_of(dict(bbox_head=dict(type='RTDETRHead'))) == (300, None)
    assert limits_of(dict(bbox_head=dict(type='RTDETRHead', denoising=dict(type='ContrastiveDenoising')))) == (300, 100)
    assert limits_of(dict(type='DINO', num_queries=900)) == (900, None)
    assert limits_of(dict(bbox_head=dict(type='ATSSHead'))) == (None, None)


def test_a_limit_looks_at_images_from_all_over_the_set(splits: tuple[Split, Split], tmp_path: Path) -> None:
    for i in range(9):
        splits[0].add(f'{i}.png', encoded(random_image(seed=i), 'PNG'))
    for split in splits:
        split.write()
    train, val = inspect(read_sets(config(tmp_path)), workers=0, limit=4, progress=False)
    assert train.rows == (0, 3, 6, 9) and val.rows == (0,) and len(train.images) == 4


def test_processes_see_what_one_sees(splits: tuple[Split, Split], tmp_path: Path) -> None:
    for i in range(40):
        splits[0].add(f'{i}.jpg', SOUND[: len(SOUND) - 9 * (i % 2)])
    for split in splits:
        split.write()
    cfg = config(tmp_path)
    before = cv2.getNumThreads()
    cv2.setNumThreads(4)
    cv2.GaussianBlur(np.zeros((2000, 2000, 3), np.uint8), (31, 31), 3)  # its threads are there, and are not forked
    alone, pooled = (inspect(read_sets(cfg), workers=workers, progress=False)[0] for workers in (0, 2))
    assert cv2.getNumThreads() == 4
    cv2.setNumThreads(before)
    assert alone.images == pooled.images and sum(bool(image.fault) for image in alone.images) == 20


def test_a_missing_file_is_a_fault_of_its_own() -> None:
    assert 'it cannot be read: No such file' in probe('/nowhere/one.jpg', (1, 1)).fault


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def spoiled(splits: tuple[Split, Split], tmp_path: Path) -> Path:
    splits[0].add('cut.jpg', CUT, [[1, 1, 8, 8, dict(category_id=2)]])
    splits[1].add('again.png', (tmp_path / 'train/images/t.png').read_bytes())
    for split in splits:
        split.write()
    path = tmp_path / 'config.py'
    config(tmp_path).dump(str(path))
    return path


def test_page_json_and_status(spoiled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main(['data', str(spoiled), '--workers', '0']) == 1
    page = capsys.readouterr().out
    lines = [' '.join(line.split()) for line in page.splitlines()]
    assert lines[0].startswith(f'train {spoiled.parent}') and max(map(len, page.splitlines()[3:])) <= 120
    for line in (
        'images 2 2',
        'of these unusable 1 0',
        'network input, px 96 x 96 96 x 96',
        'error: train, val: 1 image of val found in train too, byte for byte',
        '-> results on val are too good: part of it was learnt by heart',
        't.png = again.png',
        'warning: train: 1 image cannot be used',
        'cut.jpg: the file is cut short: the JPEG has no end',
        '1 finding falsifies results or stops a run: correct these first',
    ):
        assert line in lines, page
    assert doctor.main(['data', str(spoiled), '--workers', '0', '--json']) == 1
    loaded = json.loads(capsys.readouterr().out)
    assert loaded['status'] == 1 and [entry['name'] for entry in loaded['sets']] == ['train', 'val']
    assert loaded['sets'][0]['class_counts'] == {'cat': 1, 'dog': 1} and loaded['sets'][0]['images_unusable'] == 1
    assert loaded['findings'][0]['examples'] == ['t.png = again.png']


def test_warnings_alone_leave_the_status_at_0(
    splits: tuple[Split, Split], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for split in splits:
        split.write()
    config(tmp_path).dump(str(tmp_path / 'config.py'))
    assert doctor.main(['data', str(tmp_path / 'config.py'), '--workers', '0']) == 0
    assert capsys.readouterr().out.endswith('training can run; 1 warning to look at\n')
    assert exit_status([]) == 0


def test_a_set_that_was_not_looked_at_is_a_warning(spoiled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of another class than those of COCO files."""
    command = ['data', str(spoiled), '--workers', '0', '--cfg-options', 'train_dataloader.dataset.type=XMLDataset']
    assert doctor.main(command) == 0
    page = capsys.readouterr().out
    assert 'warning: train_dataloader.dataset: not checked: XMLDataset' in page
    assert '-> it is no class of COCO files' in page and 'training can run; 1 warning to look at' in page


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['train_dataloader.dataset.ann_file=nowhere.json'], 'no annotation file .*nowhere.json'),
        (['model.bbox_head.num_classes=9'], r'model.bbox_head.num_classes=9, but there are 2 classes'),
        (['train_dataloader=None', 'val_dataloader=None'], 'the config names no CocoDataset'),
        (
            ['train_dataloader.dataset.type=XMLDataset', 'val_dataloader=None'],
            'no CocoDataset .*not checked: XMLDataset of train_dataloader.dataset: it is no class of COCO files',
        ),
    ],
)
def test_bad_input_is_said_in_a_sentence_with_status_2(
    spoiled: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert doctor.main(['data', str(spoiled), '--workers', '0', '--cfg-options', *options]) == 2
    captured = capsys.readouterr()
    assert captured.out == '' and re.search('error: .*' + message, captured.err), captured.err


def test_a_config_that_is_nowhere_is_bad_input(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main(['data', 'nowhere/no_config.py']) == 2
    assert capsys.readouterr().err.startswith('error: ')


def test_a_dead_process_is_said(
    spoiled: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(inspection, 'probe', _die)
    assert doctor.main(['data', str(spoiled), '--workers', '1']) == 2
    assert 'a process that decodes images died' in capsys.readouterr().err


def _die(path: str, size: Any) -> None:
    os._exit(1)


def test_numbers_that_there_are_not_are_null_in_json(splits: tuple[Split, Split], tmp_path: Path) -> None:
    for split in splits:
        split.write()
    sets = inspect(read_sets(config(tmp_path)), workers=0, progress=False)
    text = to_json(sets, [])
    assert 'NaN' not in text and json.loads(text)['status'] == 0
    assert render(sets, []).endswith('nothing was found that speaks against it')
