"""Denoising: layout against the authors' mask and indices, noise against its stated bounds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import DATA
from tolerances import about

from mmdet_iouquery.core import box_cxcywh_to_xyxy, denoising_layout, first_group, noisy_truth

GOLDEN = [path for path in sorted(DATA.glob('*.npz')) if 'dn_mask' in np.load(path)]


@pytest.mark.parametrize('path', GOLDEN, ids=[path.stem for path in GOLDEN])
def test_layout_equals_the_authors(path: Path) -> None:
    golden = np.load(path)
    layout = denoising_layout((3, 0, 7), 100)
    assert layout.num_groups == golden['dn_num_group'] == 14
    num_queries = 100 if 'atto' in path.stem else 300
    assert np.array_equal(layout.attention_mask(num_queries).numpy(), golden['dn_mask'])
    image, query, truth = layout.pairs
    for i in range(3):
        assert query[image == i].tolist() == golden[f'dn_positive_{i}'].tolist()
    assert truth[image == 2].tolist() == list(range(3, 10)) * 14
    assert (layout.padded.numpy() == (golden['dn_labels'] == 80)).all()


@pytest.mark.parametrize(
    ('room', 'settings', 'counts', 'groups', 'queries'),
    [
        (100, {}, (3, 7), 14, 2 * 98),  # 100 // 7
        (100, {'contrastive': False}, (3, 7), 14, 98),
        (100, {}, (4, 1), 25, 200),
        (100, {}, (3,), 33, 198),
        (100, {}, (100,), 1, 200),
        (5, {}, (7, 0), 1, 10),  # five of the seven
        (7, {}, (7, 0), 1, 14),
        (13, {}, (7, 1), 1, 14),
        (14, {}, (7, 1), 2, 28),
        (100, {'num_groups': 5, 'contrastive': False}, (3, 7), 5, 35),
        (100, {'num_groups': 5}, (30, 7), 5, 200),  # twenty of the thirty a group
        (100, {}, (0, 0), 1, 2),
        (100, {'num_groups': 5}, (0, 0), 1, 2),
    ],
    ids=str,
)
def test_number_of_groups(room: int, settings: dict, counts: tuple, groups: int, queries: int) -> None:
    """As many groups of the fullest image as there is room for, at least 1; each box that is there once a group."""
    layout = denoising_layout(counts, room, **settings)
    assert (layout.num_groups, layout.num_denoising) == (groups, queries)
    _, times = layout.pairs[2].unique(return_counts=True)
    assert (times == groups).all()
    assert len(times) == sum(min(count, room // settings.get('num_groups', 1)) for count in counts)


def test_pairs_by_hand() -> None:
    """Two groups of two positives and two negatives: queries 0, 1, 4 and 5 answer; padding answers for nothing."""
    layout = denoising_layout((2, 0, 1), 4)
    image, query, box = (index.tolist() for index in layout.pairs)
    actual = sorted(zip(image, query, box))
    assert actual == [(0, 0, 0), (0, 1, 1), (0, 4, 0), (0, 5, 1), (2, 0, 2), (2, 4, 2)]
    assert layout.negative.tolist() == [False, False, True, True] * 2
    assert layout.padded.tolist() == [[False] * 8, [True] * 8, [False, True] * 4]
    assert layout.truth.tolist() == [[0, 1] * 4, [0] * 8, [2, 0] * 4]


def test_a_crowded_image_stays_within_the_cap() -> None:
    layout = denoising_layout((2000, 5), 100)
    assert layout.num_denoising == 200
    image, _, truth = layout.pairs
    crowded = truth[image == 0]
    assert len(crowded) == 100 == len(set(crowded.tolist())) and crowded.max() < 2000
    assert truth[image == 1].tolist() == [2000, 2001, 2002, 2003, 2004]


def test_a_crowded_image_gives_any_of_its_boxes() -> None:
    """Three of six, in their order, the same in each group of a draw; in 300 draws each about half the time."""
    times = torch.zeros(6)
    for _ in range(300):
        chosen = denoising_layout((6,), 6, num_groups=2).truth.view(4, 3)
        assert (chosen == chosen[0]).all() and (chosen[0].diff() > 0).all()
        times[chosen[0]] += 1
    # four standard deviations
    assert times.tolist() == pytest.approx([150.0] * 6, abs=4 * (300 / 4) ** 0.5)


def matrix(text: str) -> torch.Tensor:
    return torch.tensor([[character == 'x' for character in row] for row in text.split()])


@pytest.mark.parametrize(
    ('room', 'contrastive', 'counts', 'expected'),
    [
        # two groups of a positive and a negative, then three matching queries
        (2, True, (1, 1), '..xx... ..xx... xx..... xx..... xxxx... xxxx... xxxx...'),
        # three groups of one, then the same three
        (3, False, (1, 0), '.xx... x.x... xx.... xxx... xxx... xxx...'),
        # one group of two and their negatives
        (2, True, (2, 1), '....... ....... ....... ....... xxxx... xxxx... xxxx...'),
    ],
)
def test_who_may_not_see_whom(room: int, contrastive: bool, counts: tuple, expected: str) -> None:
    """Rows may not see columns marked x: no other group, and for matching queries no group at all."""
    layout = denoising_layout(counts, room, contrastive=contrastive)
    assert torch.equal(layout.attention_mask(3), matrix(expected))


def test_no_denoising_is_refused() -> None:
    with pytest.raises(ValueError, match='at least 1, got 0'):
        denoising_layout((1,), 0)


BOX = (0.5, 0.5, 0.2, 0.4)
"""From 0.4 to 0.6 and from 0.3 to 0.7: half sizes 0.1 and 0.2."""


def drawn(
    monkeypatch: pytest.MonkeyPatch, box: tuple, sizes: list, signs: list, settings: dict
) -> tuple[list[float], list[float]]:
    """The noisy boxes of one image's positive and negative where ``sizes`` in [0, 1) and ``signs`` are drawn."""
    layout = denoising_layout((1,), 1, contrastive=settings.get('box_noise') != 'centre_size')
    truth = torch.tensor([box], dtype=torch.float64)
    draws = {'rand_like': torch.tensor(sizes), 'randint_like': (torch.tensor(signs) + 1) // 2}
    for name, values in draws.items():
        monkeypatch.setattr(torch, name, lambda x, *_, values=values: values.to(x.dtype).expand_as(x))
    _, unact = noisy_truth(layout, torch.tensor([0]), truth, 5, label_noise_ratio=0, **settings)
    boxes = unact.sigmoid()[0].tolist()
    return boxes[0], boxes[-1]


def test_corners_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each by half its share of the half size, a negative's by its share and 1; right and down, left and up."""
    sizes, signs = [0.2, 0.4, 0.6, 0.8], [1, -1, 1, -1]
    positive, negative = drawn(monkeypatch, BOX, sizes, signs, {'box_noise_scale': 0.5})
    corners = [0.4 + 0.1 * 0.1, 0.3 - 0.2 * 0.2, 0.6 + 0.3 * 0.1, 0.7 - 0.4 * 0.2]
    far = [0.4 + 0.6 * 0.1, 0.3 - 0.7 * 0.2, 0.6 + 0.8 * 0.1, 0.7 - 0.9 * 0.2]
    for noisy, expected in ((positive, corners), (negative, far)):
        assert box_cxcywh_to_xyxy(torch.tensor(noisy)).tolist() == about(expected, 'unit')


def test_centre_and_size_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """The centre by half its share of the half size, a side by half its share of itself."""
    settings = {'box_noise_scale': 0.5, 'box_noise': 'centre_size'}
    noisy, _ = drawn(monkeypatch, BOX, [0.2, 0.4, 0.6, 0.8], [1, -1, 1, -1], settings)
    expected = [0.5 + 0.1 * 0.1, 0.5 - 0.2 * 0.2, 0.2 * 1.3, 0.4 * 0.6]
    assert noisy == about(expected, 'unit')


@pytest.mark.parametrize('box_noise', ['corners', 'centre_size'])
def test_a_corner_beyond_the_image_is_put_on_its_edge(box_noise: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The box from (0, 0.8) to (0.1, 1), its coordinates or its centre moved: two are inside and stay as they are."""
    signs = [-1, 1, -1, 1] if box_noise == 'corners' else [-1, 1, 1, 1]
    sizes = [0.5] * 4 if box_noise == 'corners' else [0.5, 0.5, 0.0, 0.0]
    noisy, _ = drawn(monkeypatch, (0.05, 0.9, 0.1, 0.2), sizes, signs, {'box_noise': box_noise})
    expected = [0.0, 0.85, 0.075, 1.0]
    assert box_cxcywh_to_xyxy(torch.tensor(noisy)).tolist() == about(expected, 'unit')


@pytest.mark.parametrize('scale', [0.4, 1.0])
def test_corners_move_by_at_most_their_bounds(scale: float) -> None:
    """In half sizes of the box: positives up to the scale, negatives from there to twice as much, either way."""
    boxes = torch.tensor([[0.5, 0.5, 0.2, 0.1], [0.4, 0.6, 0.1, 0.3]], dtype=torch.float64)
    layout = denoising_layout((2,), 2000)
    _, unact = noisy_truth(layout, torch.tensor([0, 1]), boxes, 5, box_noise_scale=scale)
    noisy, truth = unact.sigmoid(), boxes[layout.truth]
    moved = (box_cxcywh_to_xyxy(noisy) - box_cxcywh_to_xyxy(truth)) / (0.5 * truth[..., 2:].repeat(1, 1, 2))
    # opposite corners of a negative may pass each other; its size is then 0 and its corners can't be told
    upright = (noisy[..., 2:] > 1e-4).all(-1)
    assert upright[:, ~layout.negative].all() and (scale == 1.0 or upright.all())
    positive, negative = moved[:, ~layout.negative], moved[upright & layout.negative]
    assert 0.99 * scale < positive.abs().max() <= scale + 1e-4
    # four standard deviations of the mean of 4000
    assert positive.abs().mean().item() == pytest.approx(scale / 2, abs=0.02)
    assert positive.mean((0, 1)).tolist() == pytest.approx([0.0] * 4, abs=0.05)  # three of the mean of 1000
    assert scale - 1e-4 <= negative.abs().min() < 1.01 * scale
    assert 1.99 * scale < negative.abs().max() <= 2 * scale + 1e-4
    # each coordinate by itself
    correlation = torch.corrcoef(positive.flatten(0, 1).T) - torch.eye(4)
    assert correlation.abs().max() < 0.1


def test_boxes_stay_inside_the_image() -> None:
    boxes = torch.tensor([[0.02, 0.98, 0.04, 0.04]])
    _, unact = noisy_truth(denoising_layout((1,), 500), torch.tensor([0]), boxes, 3)
    corners = box_cxcywh_to_xyxy(unact.sigmoid())
    assert torch.isfinite(unact).all() and corners.min() >= -1e-4 and corners.max() <= 1 + 1e-4


@pytest.mark.parametrize('ratio', [0.0, 0.5, 1.0])
def test_half_the_ratio_of_labels_is_drawn_anew(ratio: float) -> None:
    """Of positives and negatives alike, of all classes alike: one in four to what it was."""
    layout = denoising_layout((1,), 20000)
    labels, _ = noisy_truth(layout, torch.tensor([1]), torch.full((1, 4), 0.5), 4, label_noise_ratio=ratio)
    for drawn in (labels[0, layout.negative], labels[0, ~layout.negative]):
        shares = drawn.bincount() / len(drawn)
        expected = [ratio / 8, 1 - 3 * ratio / 8, ratio / 8, ratio / 8]
        if ratio == 0:
            assert (drawn == 1).all()
        else:  # four standard deviations of the largest
            assert shares.tolist() == pytest.approx(expected, abs=4 * 0.5 / 20000**0.5)  # 0.5: of one draw, at most


def test_without_noise_the_truth_comes_back() -> None:
    boxes, layout = torch.rand(3, 4, dtype=torch.float64) * 0.4 + 0.3, denoising_layout((1, 2), 8)
    labels, unact = noisy_truth(layout, torch.tensor([1, 2, 0]), boxes, 4, label_noise_ratio=0, box_noise_scale=0)
    torch.testing.assert_close(unact.sigmoid()[~layout.padded], boxes[layout.truth][~layout.padded])
    assert (labels[layout.padded] == 4).all()
    assert labels[~layout.padded].tolist() == torch.tensor([1, 2, 0])[layout.truth][~layout.padded].tolist()


def test_without_negatives_there_are_half_as_many() -> None:
    layout = denoising_layout((3, 0, 7), 100, contrastive=False)
    assert (layout.num_groups, layout.num_denoising) == (14, 98) and not layout.negative.any()
    image, query, truth = layout.pairs
    assert query[image == 0].tolist() == [g * 7 + i for g in range(14) for i in range(3)]
    assert truth[image == 2].tolist() == list(range(3, 10)) * 14
    assert layout.attention_mask(5)[:7, 7:98].all() and not layout.attention_mask(5)[:7, :7].any()


@pytest.mark.parametrize('contrastive', [True, False])
def test_a_fixed_number_of_groups_keeps_to_the_cap(contrastive: bool) -> None:
    for counts, width in (((3, 1), 3), ((500, 2), 20)):
        layout = denoising_layout(counts, 100, contrastive=contrastive, num_groups=5)
        assert (layout.num_groups, layout.num_denoising) == (5, 5 * width * (2 if contrastive else 1))
    crowded = layout.pairs[2][layout.pairs[0] == 0]
    assert len(crowded) == 100 and len(set(crowded.tolist())) == 20


def test_group_numbers_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r'num_groups must lie in \[1, num_denoising=4\], got 5'):
        denoising_layout((1,), 4, num_groups=5)


def test_centre_and_size_noise_keeps_to_its_bounds() -> None:
    """DN-DETR's: the centre within the box, each side between (1 - s) and (1 + s) of itself."""
    boxes, scale = torch.tensor([[0.5, 0.5, 0.2, 0.1]], dtype=torch.float64), 0.4
    layout = denoising_layout((1,), 4000, contrastive=False)
    _, unact = noisy_truth(layout, torch.tensor([0]), boxes, 5, box_noise_scale=scale, box_noise='centre_size')
    noisy = unact.sigmoid()[0]
    shift = (noisy[:, :2] - boxes[:, :2]).abs() / (0.5 * boxes[:, 2:])
    growth = noisy[:, 2:] / boxes[:, 2:]
    # eight standard deviations of 8000 draws
    assert shift.max() <= scale + 1e-6 and shift.mean().item() == pytest.approx(scale / 2, abs=0.01)
    assert growth.min() >= 1 - scale - 1e-6 and growth.max() <= 1 + scale + 1e-6
    assert growth.std().item() == pytest.approx(scale / 3**0.5, abs=0.01)  # eight standard deviations of 8000 draws


@pytest.mark.parametrize('contrastive', [True, False])
@pytest.mark.parametrize('count', [1, 2, 5])
def test_the_first_group_of_one_image(count: int, contrastive: bool) -> None:
    """Its boxes in order as positives and, if contrastive, once more as negatives: as the layout has them."""
    layout = denoising_layout((count,), 15, contrastive=contrastive, num_groups=3)
    where, truth, positive = first_group(layout.pairs, layout.num_denoising, layout.num_groups)
    assert (where.start, where.stop) == (None, count * (1 + contrastive))
    assert torch.equal(truth, layout.truth[0, where]) and torch.equal(positive, ~layout.negative[where])
    assert truth[:count].tolist() == list(range(count)) and positive[:count].all() and not positive[count:].any()
