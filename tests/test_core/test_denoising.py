"""Denoising: layout against the authors' mask and indices, noise against its stated bounds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mmdet_iouquery.core import box_cxcywh_to_xyxy, denoising_layout, noisy_truth

GOLDEN = Path(__file__).parents[1] / 'data' / 'rtdetr_r18_320x320.npz'


def test_layout_equals_the_authors() -> None:
    golden = np.load(GOLDEN)
    layout = denoising_layout((3, 0, 7), 100)
    assert layout.num_groups == golden['dn_num_group'] == 14
    assert (layout.attention_mask(300).numpy() == golden['dn_mask']).all()
    image, query, truth = layout.pairs
    for i in range(3):
        assert query[image == i].tolist() == golden[f'dn_positive_{i}'].tolist()
    assert truth[image == 2].tolist() == list(range(3, 10)) * 14
    assert (layout.padded.numpy() == (golden['dn_labels'] == 80)).all()


@pytest.mark.parametrize(
    ('counts', 'groups', 'queries'), [((4, 1), 25, 200), ((100,), 1, 200), ((0, 0), 1, 2), ((3,), 33, 198)]
)
def test_group_counts(counts: tuple, groups: int, queries: int) -> None:
    layout = denoising_layout(counts, 100)
    assert (layout.num_groups, layout.num_denoising) == (groups, queries)


def test_a_crowded_image_stays_within_the_cap() -> None:
    layout = denoising_layout((2000, 5), 100)
    assert layout.num_denoising == 200
    image, query, truth = layout.pairs
    crowded = truth[image == 0]
    assert len(crowded) == 100 == len(set(crowded.tolist())) and crowded.max() < 2000
    assert truth[image == 1].tolist() == [2000, 2001, 2002, 2003, 2004]


def test_mask_lets_nothing_leak() -> None:
    layout = denoising_layout((2, 1), 6)
    mask, p = layout.attention_mask(4), layout.num_denoising
    assert mask[p:, :p].all() and not mask[p:, p:].any()
    width = p // layout.num_groups
    for g in range(layout.num_groups):
        rows = mask[g * width : (g + 1) * width, :p]
        assert not rows[:, g * width : (g + 1) * width].any() and int((~rows).sum()) == width * width


def test_no_denoising_is_refused() -> None:
    with pytest.raises(ValueError, match='at least 1, got 0'):
        denoising_layout((1,), 0)


def test_corners_move_by_at_most_their_bounds() -> None:
    boxes = torch.tensor([[0.5, 0.5, 0.2, 0.1], [0.4, 0.6, 0.1, 0.3]], dtype=torch.float64)
    layout = denoising_layout((2,), 2000)
    _, unact = noisy_truth(layout, torch.tensor([0, 1]), boxes, 5)
    noisy, truth = unact.sigmoid(), boxes[layout.truth]
    moved = (box_cxcywh_to_xyxy(noisy) - box_cxcywh_to_xyxy(truth)).abs() / (0.5 * truth[..., 2:].repeat(1, 1, 2))
    # opposite corners of a negative may pass each other; its size is then 0 and its corners can't be told
    upright = (noisy[..., 2:] > 1e-4).all(-1)
    positive, negative = moved[:, ~layout.negative], moved[upright & layout.negative]
    assert upright[:, ~layout.negative].all()
    assert positive.max() <= 1 + 1e-4 and positive.mean().item() == pytest.approx(0.5, abs=0.02)
    assert negative.min() >= 1 - 1e-4 and negative.max() <= 2 + 1e-4


def test_boxes_stay_inside_the_image() -> None:
    boxes = torch.tensor([[0.02, 0.98, 0.04, 0.04]])
    _, unact = noisy_truth(denoising_layout((1,), 500), torch.tensor([0]), boxes, 3)
    corners = box_cxcywh_to_xyxy(unact.sigmoid())
    assert torch.isfinite(unact).all() and corners.min() >= -1e-4 and corners.max() <= 1 + 1e-4


def test_share_of_changed_labels() -> None:
    layout = denoising_layout((1,), 20000)
    labels, _ = noisy_truth(layout, torch.tensor([7]), torch.full((1, 4), 0.5), 10, label_noise_ratio=0.5)
    # a quarter is redrawn, one in ten of those to the same class
    assert (labels != 7).double().mean().item() == pytest.approx(0.25 * 0.9, abs=0.01)
    assert labels.min() >= 0 and labels.max() < 10


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
    assert shift.max() <= scale + 1e-6 and shift.mean().item() == pytest.approx(scale / 2, abs=0.01)
    assert growth.min() >= 1 - scale - 1e-6 and growth.max() <= 1 + scale + 1e-6
    assert growth.std().item() == pytest.approx(scale / 3**0.5, abs=0.01)
