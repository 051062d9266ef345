"""Parts of a set: as it says, or drawn by classes."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from mmdet_iouquery.apps.data.reading import Account, LabelledBox, LabelledImage
from mmdet_iouquery.apps.data.split import draw, splits_of
from mmdet_iouquery.errors import InputError


def image(name: str, part: str = '', labels: str = 'a') -> LabelledImage:
    boxes = tuple(LabelledBox(label, (0, 0, 9, 9)) for label in labels)
    return LabelledImage(Path('/set') / name, (10, 10), boxes, part)


def labels_of(text: str) -> list[frozenset[str]]:
    """Classes of images, a letter each: ``'ab a -'`` are three images, the last without objects."""
    return [frozenset(word.replace('-', '')) for word in text.split()]


@pytest.mark.parametrize('seed', range(5))
def test_each_class_has_its_share(seed: int) -> None:
    labels = labels_of('a ' * 100 + 'b ' * 20 + 'c ' * 5 + '- ' * 10)
    chosen = draw(labels, seed)
    assert Counter(''.join(labels[index]) or '-' for index in chosen) == {'a': 20, 'b': 4, 'c': 1, '-': 2}


def test_a_seed_always_draws_the_same_and_another_one_does_not() -> None:
    labels = labels_of('a ' * 30 + 'b ' * 30)
    assert draw(labels, 3) == draw(labels, 3) != draw(labels, 4)


@pytest.mark.parametrize('seed', range(20))
def test_images_of_several_classes(seed: int) -> None:
    """A common class keeps its share within a few images; every class with two images or more is in both parts."""
    rng = random.Random(seed)
    letters = 'abcdefgh'
    labels = [
        frozenset(letter for index, letter in enumerate(letters) if rng.random() < 0.5 / (1 + index))
        for _ in range(200)
    ]
    chosen = draw(labels, seed)
    total = Counter(name for label in labels for name in label)
    inside = Counter(name for index in chosen for name in labels[index])
    for name, count in total.items():
        assert abs(inside[name] - 0.2 * count) <= max(2, 0.1 * count), (name, count, inside[name])
        assert count < 2 or 0 < inside[name] < count
    assert 0.15 * 200 < len(chosen) < 0.25 * 200


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('a a', {'a'}),  # one of two
        ('a b', None),  # any: a class is lost to training whatever is drawn
        ('a a b', {'a'}),  # not b, which has one image
        ('ab ab a', None),
        ('ab ab ab', {'ab'}),
        ('a a -', {'a'}),
        ('ap p aq q', None),  # of classes that share images, all are there
    ],
)
def test_tiny_sets(text: str, expected: set[str] | None) -> None:
    labels = labels_of(text)
    for seed in range(10):
        chosen = draw(labels, seed)
        drawn = {''.join(sorted(labels[index])) for index in chosen}
        assert drawn == expected or expected is None
        assert any(labels[index] for index in chosen) and len(chosen) < len(labels)
        if text == 'ap p aq q':
            assert set(''.join(drawn)) == {'a', 'p', 'q'}


@pytest.mark.parametrize('seed', range(10))
def test_a_rare_class_keeps_its_share_and_its_only_image(seed: int) -> None:
    labels = labels_of('ab ' * 5 + 'a ' * 5)
    assert sorted(''.join(sorted(labels[index])) for index in draw(labels, seed)) == ['a', 'ab'], (
        'one image of b, not two'
    )
    singles = labels_of('a ab ac ad ae af ag ah ai aj')
    assert [singles[index] for index in draw(singles, seed)] == [{'a'}], (
        'two of ten would cost another class its only one'
    )


def test_parts_that_are_named_are_kept() -> None:
    account = Account()
    images = [image('c', 'val'), image('b', 'train'), image('a', 'train'), image('d', 'test'), image('e')]
    parts, drawn = splits_of(images, account, Path('/set'), 0)
    assert {part: [image.path.name for image in images] for part, images in parts.items()} == {
        'train': ['a', 'b'],
        'val': ['c'],
        'test': ['d'],
    }
    assert not drawn and account.left_out['images', 'for neither training nor validation'].first == ['/set/e']


def test_test_images_are_never_drawn() -> None:
    images = [image(str(number), 'test' if number < 50 else 'train') for number in range(60)]
    parts, drawn = splits_of(images, Account(), Path('/set'), 0)
    assert drawn and [len(parts[part]) for part in ('train', 'val', 'test')] == [8, 2, 50]


def test_the_order_of_reading_does_not_matter() -> None:
    images = [image(f'{number:02}', labels='ab'[number % 2]) for number in range(20)]
    first, second = (splits_of(some, Account(), Path('/set'), 7)[0] for some in (images, images[::-1]))
    assert first == second and len(first['val']) == 4


@pytest.mark.parametrize('seed', range(5))
def test_images_that_were_drawn_before_keep_their_split(seed: int) -> None:
    labels = labels_of('a ' * 10 + 'b ' * 10 + '- ' * 10)
    before = draw(labels, seed)
    kept = {index: 'val' if index in before else 'train' for index in range(30)}
    assert draw(labels, seed + 1, kept=kept) == before, 'nothing is new'
    grown = [*labels, *labels_of('a ' * 20 + 'b ' * 5 + '- ' * 5)]
    chosen = draw(grown, seed, kept=kept)
    assert {index for index in chosen if index < 30} == before
    assert Counter(''.join(grown[index]) or '-' for index in chosen) == {'a': 6, 'b': 3, '-': 3}


def test_new_images_take_the_place_of_validation_images_that_are_gone() -> None:
    """And where none is new, one of training does, as a set needs one."""
    labels = labels_of('a a a a a - -')
    assert len(draw(labels, 0, kept=dict.fromkeys(range(4), 'train')) & {4}) == 1
    assert draw(labels, 0, kept=dict.fromkeys(range(5), 'train')) <= set(range(5))


def test_images_named_twice_count_once() -> None:
    account = Account()
    parts, _ = splits_of(
        [image('a', 'train'), image('a', 'train'), image('b', 'val'), image('a', 'val')], account, Path('/s'), 0
    )
    assert [len(parts['train']), len(parts['val'])] == [1, 2]
    assert account.left_out['images', 'named a second time'].count == 1


@pytest.mark.parametrize(
    ('images', 'message'),
    [
        ([image('a', 'val'), image('b', 'test')], 'has images for val and test, but none for training'),
        ([image('a'), image('b', labels='')], 'has 1 image with objects; a set needs one for training'),
    ],
)
def test_sets_that_cannot_be_parted(images: list[LabelledImage], message: str) -> None:
    with pytest.raises(InputError, match=message):
        splits_of(images, Account(), Path('/set'), 0)
