"""The digits set: equal for equal seeds, disjoint splits, boxes tight around the ink."""

from __future__ import annotations

import builtins
import hashlib
import json
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn import datasets as sklearn_datasets

from mmdet_iouquery.apps.quickstart.digit_image import (
    INK_ALPHA,
    compose_image,
    overlap,
    readable_colour,
    stroke_alpha,
)
from mmdet_iouquery.apps.quickstart.digits import build_digits, digits_checksums, scan_pools
from mmdet_iouquery.errors import InputError

SMALL: dict[str, Any] = dict(num_train=24, num_val=8, image_size=256, seed=3, progress=False)


@pytest.fixture(scope='module')
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_digits(tmp_path_factory.mktemp('digits') / 'set', **SMALL)


def _annotations(root: Path, split: str) -> dict[str, Any]:
    return json.loads((root / 'annotations' / f'{split}.json').read_text())


def _files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob('*')) if path.is_file()}


def test_same_seed_gives_equal_bytes_and_another_seed_does_not(root: Path, tmp_path: Path) -> None:
    again = build_digits(tmp_path / 'again', **SMALL)
    assert _files(again) == _files(root)
    other = build_digits(tmp_path / 'other', **{**SMALL, 'seed': 4})
    assert _files(other).keys() == _files(root).keys()
    same = [name for name, content in _files(other).items() if content == _files(root)[name]]
    assert same == []
    assert digits_checksums(again) == digits_checksums(root)
    assert not set(digits_checksums(other).values()) & set(digits_checksums(root).values())


def test_checksums_are_those_of_the_files(tmp_path: Path) -> None:
    """By hand, of two images and two annotation files; each sum sees a change of its own files alone."""
    made = build_digits(tmp_path / 'set', **dict(SMALL, num_train=2, num_val=1))

    def by_hand(*names: str) -> str:
        list_of_sums = ''.join(f'{hashlib.sha256((made / name).read_bytes()).hexdigest()}  {name}\n' for name in names)
        return hashlib.sha256(list_of_sums.encode()).hexdigest()

    before = digits_checksums(made)
    assert before == {
        'annotations': by_hand('annotations/train.json', 'annotations/val.json'),
        'images': by_hand('train/000001.jpg', 'train/000002.jpg', 'val/000001.jpg'),
    }
    image, boxes = made / 'val' / '000001.jpg', made / 'annotations' / 'train.json'
    image.write_bytes(image.read_bytes()[:-1] + b'\0')
    other_images = digits_checksums(made)
    assert other_images['images'] != before['images'] and other_images['annotations'] == before['annotations']
    boxes.write_text(boxes.read_text().replace('"iscrowd":0', '"iscrowd":1', 1))
    other_boxes = digits_checksums(made)
    assert other_boxes['images'] == other_images['images'] and other_boxes['annotations'] != before['annotations']


def test_checksums_are_said_when_a_set_is_made_and_when_it_is_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = dict(SMALL, num_train=2, num_val=1, progress=True)
    made = build_digits(tmp_path / 'set', **few)
    sums = [f'{name} {digest[:16]}' for name, digest in digits_checksums(made).items()]
    assert capsys.readouterr().out.splitlines()[-1] == f'SHA-256: {", ".join(sums)}'
    build_digits(made, **few)
    assert capsys.readouterr().out.splitlines()[-1] == f'SHA-256: {", ".join(sums)}'


def test_more_images_keep_the_first_ones(root: Path, tmp_path: Path) -> None:
    longer = build_digits(tmp_path / 'longer', **{**SMALL, 'num_train': 30})
    first, more = _annotations(root, 'train'), _annotations(longer, 'train')
    assert more['images'][:24] == first['images']
    assert more['annotations'][: len(first['annotations'])] == first['annotations']


def test_counts_ids_and_classes(root: Path) -> None:
    seen = set()
    for split, count in (('train', 24), ('val', 8)):
        content = _annotations(root, split)
        assert len(content['images']) == len(list((root / split).glob('*.jpg'))) == count
        assert [(c['id'], c['name']) for c in content['categories']] == [(d + 1, str(d)) for d in range(10)]
        per_image = np.bincount([a['image_id'] for a in content['annotations']], minlength=count + 1)[1:]
        assert per_image.min() >= 1 and per_image.max() <= 8
        assert [a['id'] for a in content['annotations']] == list(range(1, len(content['annotations']) + 1))
        assert all(a['iscrowd'] == 0 for a in content['annotations'])
        seen |= {a['category_id'] for a in content['annotations']}
    assert seen == set(range(1, 11))


def test_category_is_the_digit_of_its_scan(root: Path) -> None:
    target = sklearn_datasets.load_digits().target
    annotations = _annotations(root, 'train')['annotations'] + _annotations(root, 'val')['annotations']
    assert all(target[a['scan']] + 1 == a['category_id'] for a in annotations)


def test_no_scan_is_in_both_splits(root: Path) -> None:
    train, val = ({a['scan'] for a in _annotations(root, split)['annotations']} for split in ('train', 'val'))
    assert train and val and not train & val
    pools = scan_pools(1797, seed=3)
    assert train <= set(pools['train'].tolist()) and val <= set(pools['val'].tolist())
    assert sorted([*pools['train'], *pools['val']]) == list(range(1797))
    assert len(pools['train']) == 1438


def test_boxes_lie_inside_and_hardly_overlap(root: Path) -> None:
    for split in ('train', 'val'):
        content = _annotations(root, split)
        for image in content['images']:
            boxes = [a['bbox'] for a in content['annotations'] if a['image_id'] == image['id']]
            for x, y, w, h in boxes:
                assert x >= 0 and y >= 0 and x + w <= image['width'] and y + h <= image['height']
                assert 20 <= h <= 100 and w >= 6
            pairs = [(a, b) for i, a in enumerate(boxes) for b in boxes[:i]]
            assert all(overlap(a, b) <= 0.05 for a, b in pairs)
        with Image.open(root / split / content['images'][0]['file_name']) as opened:
            assert opened.size == (256, 256)


def test_areas_are_those_of_the_boxes(root: Path) -> None:
    for a in _annotations(root, 'train')['annotations']:
        assert a['area'] == pytest.approx(a['bbox'][2] * a['bbox'][3])


def test_boxes_are_tight_around_what_changed_in_the_image() -> None:
    scans = sklearn_datasets.load_digits().images / 16.0
    background = np.full((256, 256, 3), 128, np.uint8)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        image, digits = compose_image(rng, background, scans, [seed, 100 + seed, 900 + seed], max_overlap=0.0)
        changed = np.abs(image.astype(int) - 128).max(axis=2) > 5
        outside = changed.copy()
        for _, (x, y, w, h) in digits:
            ys, xs = np.nonzero(changed[y : y + h, x : x + w])
            assert (xs.min(), xs.max(), ys.min(), ys.max()) == (0, w - 1, 0, h - 1)
            outside[y : y + h, x : x + w] = False
        assert not outside.any()


def test_digits_differ_from_what_is_behind_them() -> None:
    """Nine in ten of the pixels behind differ in luma by 70 of 255 or more, so the stroke's own mean does by 50."""
    scans = sklearn_datasets.load_digits().images / 16.0
    luma = np.array([0.299, 0.587, 0.114])
    for grey in (0, 100, 128, 255):
        background = np.full((256, 256, 3), grey, np.uint8)
        image, digits = compose_image(np.random.default_rng(grey), background, scans, list(range(5)), 0.0)
        for scan, (x, y, w, h) in digits:
            patch = image[y : y + h, x : x + w] @ luma
            assert np.abs(patch - grey).max() >= 70 * 0.85, (grey, scan)


def test_colour_where_no_colour_contrasts_enough() -> None:
    """The greys 20, 128 and 235 lie behind: the best luma is half-way between two of them, with a contrast of 54."""
    behind = np.resize(np.array([20, 128, 235]), 15 * 15).reshape(15, 15, 1).repeat(3, axis=2)
    for seed in range(10):
        colour, contrast = readable_colour(np.random.default_rng(seed), behind)
        luma = float(colour @ np.array([0.299, 0.587, 0.114]))
        assert min(abs(luma - 74), abs(luma - 181.5)) < 10
        assert contrast == pytest.approx(min(abs(luma - level) for level in (20, 128, 235))) and contrast > 44


def test_stroke_of_a_hand_made_scan() -> None:
    """A bar of 2 x 4 cells at 8 px a cell is about 16 x 32 px of ink, up to the smooth rim."""
    scan = np.zeros((8, 8))
    scan[2:6, 3:5] = 1
    alpha = stroke_alpha(scan, height=64, stretch=1.0)
    assert abs(alpha.shape[0] - 32) <= 4 and abs(alpha.shape[1] - 16) <= 4
    assert alpha.max() == 1 and alpha[alpha > 0].min() > INK_ALPHA
    for edge in (alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1]):
        assert edge.max() > INK_ALPHA
    wide = stroke_alpha(scan, height=64, stretch=2.0)
    assert wide.shape[0] == alpha.shape[0] and abs(wide.shape[1] - 2 * alpha.shape[1]) <= 2


def test_overlap_of_hand_made_boxes() -> None:
    assert overlap((0, 0, 10, 10), (10, 0, 10, 10)) == 0
    assert overlap((0, 0, 10, 10), (5, 0, 10, 10)) == 0.5
    assert overlap((0, 0, 100, 100), (20, 20, 10, 10)) == 1


def test_first_digit_is_placed_even_where_nothing_contrasts() -> None:
    scans = sklearn_datasets.load_digits().images / 16.0
    noise = np.random.default_rng(0).integers(0, 2, size=(96, 96, 1)) * 255
    image, digits = compose_image(
        np.random.default_rng(0), np.repeat(noise, 3, axis=2).astype(np.uint8), scans, [0, 1, 2], 0.0
    )
    assert [digit.scan for digit in digits][:1] == [0] and image.shape == (96, 96, 3)


def test_an_equal_set_is_left_alone(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in root.rglob('*')}
    assert build_digits(root, **{**SMALL, 'progress': True}) == root
    assert 'already holds this set' in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in root.rglob('*')} == before


def test_other_content_is_never_overwritten(root: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r'other parameters \(seed: 3 there, \d+ asked for now\)'):
        build_digits(root, **{**SMALL, 'seed': 9})
    (tmp_path / 'notes.txt').write_text('mine')
    with pytest.raises(InputError, match='holds files that are not a digits set'):
        build_digits(tmp_path, **SMALL)
    with pytest.raises(InputError, match=r'notes\.txt is a file'):
        build_digits(tmp_path / 'notes.txt', **SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ['notes.txt']
    with pytest.raises(InputError, match=r'cannot write to /proc: .*; name another folder'):
        build_digits('/proc/x', progress=False)


def test_a_set_that_lost_files_gets_them_back(tmp_path: Path) -> None:
    few = dict(SMALL, num_train=2, num_val=1)
    made = build_digits(tmp_path / 'set', **few)
    before = digits_checksums(made)
    (made / 'train' / '000002.jpg').unlink()
    (made / 'annotations' / 'val.json').unlink()
    (made / 'notes.txt').write_text('mine')
    kept = (made / 'train' / '000001.jpg').stat().st_mtime_ns
    build_digits(made, **few)
    assert digits_checksums(made) == before
    assert (made / 'train' / '000001.jpg').stat().st_mtime_ns == kept and (made / 'notes.txt').read_text() == 'mine'
    assert [path.name for path in tmp_path.iterdir()] == ['set']


def test_an_interrupted_build_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr('mmdet_iouquery.apps.quickstart.digits.compose_image', interrupt)
    with pytest.raises(KeyboardInterrupt):
        build_digits(tmp_path / 'set', **SMALL)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / 'set').mkdir()
    made = build_digits(tmp_path / 'set', num_train=1, num_val=1, image_size=128, progress=False)
    assert sorted(path.name for path in made.iterdir()) == ['annotations', 'digits.json', 'train', 'val']
    assert [path.name for path in tmp_path.iterdir()] == ['set']


@pytest.mark.parametrize(
    ('name', 'value'), [('num_train', 0), ('num_val', 0), ('image_size', 32), ('seed', -1), ('max_overlap', 1.0)]
)
def test_parameters_out_of_range(tmp_path: Path, name: str, value: float) -> None:
    option = name.replace('_', '-')
    with pytest.raises(InputError, match=rf'^{name} \(--{option}\) must .*, got {value}$'):
        build_digits(tmp_path / 'set', **{**SMALL, name: value})
    assert not (tmp_path / 'set').exists()


def test_missing_scikit_learn_names_the_install_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith('sklearn'):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, '__import__', without)
    with pytest.raises(InputError, match='pip install scikit-learn'):
        build_digits(tmp_path / 'set', **SMALL)
    assert list(tmp_path.iterdir()) == []


def test_others_may_read_the_set_as_the_umask_has_it(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        root = build_digits(tmp_path / 'set', **SMALL)
    finally:
        os.umask(before)
    assert [stat.S_IMODE(path.stat().st_mode) for path in (root, root / 'train', root / 'digits.json')] == [
        0o750,
        0o750,
        0o640,
    ]
