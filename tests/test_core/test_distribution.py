"""Edges as distributions: against the authors' numbers, by hand, and laws."""

from __future__ import annotations

import math

import golden_formula as formula
import pytest
import torch
from helpers import golden
from tolerances import about, within
from torch import Tensor

from mmdet_iouquery.core import (
    EdgeTargets,
    balance,
    balanced_mean,
    bin_values,
    box_cxcywh_to_xyxy,
    box_iou_elementwise,
    box_xyxy_to_cxcywh,
    distances_to_boxes,
    distillation_divergence,
    edge_cross_entropy,
    edge_targets,
    expected_distances,
)

UNITS = golden('next_units')
SCALES = [(32, 0.5, 4), (32, 0.5, 8), (16, 0.5, 4), (32, 0.25, 4)]


def unit(name: str) -> Tensor:
    return torch.from_numpy(UNITS[name])


def two_bins(targets: EdgeTargets, num_bins: int) -> Tensor:
    """The distributions (..., 4, R + 1) that targets describe."""
    share = targets.right_share
    probabilities = share.new_zeros(*share.shape, num_bins)
    probabilities.scatter_(-1, targets.left_bin.unsqueeze(-1), 1 - share.unsqueeze(-1))
    return probabilities.scatter_add(-1, targets.left_bin.unsqueeze(-1) + 1, share.unsqueeze(-1))


def assert_targets(actual: EdgeTargets, expected_bin: Tensor, expected_share: Tensor) -> None:
    """A target on a bin may be told from either side of it, so what is compared is bin and share as one number."""
    position = actual.left_bin + actual.right_share
    torch.testing.assert_close(position.flatten(), expected_bin.trunc() + expected_share, **within(torch.float32))


@pytest.fixture(scope='module')
def truth() -> list[Tensor]:
    """The ground-truth boxes of each of the two images."""
    return [torch.from_numpy(boxes) for _, boxes in formula.targets('units', 2, [4, 2], 6)]


class TestBinValues:
    @pytest.mark.parametrize(('reg_max', 'up', 'reg_scale'), SCALES)
    def test_the_authors(self, reg_max: int, up: float, reg_scale: int) -> None:
        expected = unit(f'weighting/{reg_max}_{up}_{reg_scale}')
        torch.testing.assert_close(bin_values(reg_max, reg_scale, up), expected, **within(torch.float32))

    def test_by_hand(self) -> None:
        # u = 1, c = 2 ** (2 / 4): 0, c - 1, c ** 2 - 1 = u, and 2 u
        expected = [-2, -1, 1 - 2**0.5, 0, 2**0.5 - 1, 1, 2]
        torch.testing.assert_close(bin_values(6, 2.0), torch.tensor(expected))

    @pytest.mark.parametrize('arguments', [(31, 4.0), (2, 4.0), (32, 0.0), (32, 4.0, -0.5)])
    def test_what_has_no_bins_is_refused(self, arguments: tuple) -> None:
        with pytest.raises(ValueError, match=r'reg_max must be even|above 0'):
            bin_values(*arguments)


class TestBoxes:
    def test_the_authors_mean(self) -> None:
        corners = unit('corner_logits').unflatten(-1, (4, 33))
        torch.testing.assert_close(
            expected_distances(corners, bin_values(32, 4)), unit('integral'), **within(torch.float32)
        )

    @pytest.mark.parametrize('reg_scale', [4, 8])
    def test_the_authors_boxes(self, reg_scale: int) -> None:
        boxes = distances_to_boxes(unit('points'), unit('distance'), reg_scale)
        torch.testing.assert_close(boxes, unit(f'distance2bbox/{reg_scale}'), **within(torch.float32))

    def test_by_hand(self) -> None:
        """Of four parts in the width of 0.4, the left edge moves outwards by one, the lower one inwards by half."""
        reference = torch.tensor([0.5, 0.5, 0.4, 0.2])
        box = distances_to_boxes(reference, torch.tensor([1.0, 0.0, 0.0, -0.5]), 4.0)
        torch.testing.assert_close(box_cxcywh_to_xyxy(box), torch.tensor([0.2, 0.4, 0.7, 0.575]))

    def test_edges_that_pass_each_other_give_a_negative_size(self) -> None:
        box = distances_to_boxes(torch.tensor([0.5, 0.5, 0.4, 0.4]), torch.full((4,), -3.0), 4.0)
        torch.testing.assert_close(box, torch.tensor([0.5, 0.5, -0.2, -0.2]))

    def test_no_distance_is_the_reference(self) -> None:
        references = torch.rand(5, 4)
        assert torch.equal(distances_to_boxes(references, torch.zeros(5, 4), 4.0), references)

    def test_uniform_logits_mean_no_distance(self) -> None:
        distances = expected_distances(torch.full((3, 4, 33), 1.7), bin_values(32, 4))
        torch.testing.assert_close(distances, torch.zeros(3, 4), **within('unit'))

    @pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
    def test_half_precision_is_left(self, dtype: torch.dtype) -> None:
        values, corners, references = bin_values(32, 4), torch.randn(2, 4, 33).to(dtype), torch.rand(2, 4).to(dtype)
        distances = expected_distances(corners, values)
        assert torch.equal(distances, expected_distances(corners.float(), values))
        boxes = distances_to_boxes(references, distances.to(dtype), 4.0)
        assert torch.equal(boxes, distances_to_boxes(references.float(), distances.to(dtype).float(), 4.0))
        with torch.autocast('cpu', dtype):
            assert torch.equal(expected_distances(corners.float(), values), distances)


class TestTargets:
    @pytest.mark.parametrize(('reg_max', 'up', 'reg_scale'), SCALES)
    def test_the_authors_bins(self, reg_max: int, up: float, reg_scale: int) -> None:
        """Distances that are on bins, between them, and beyond both ends; the opposite edge lies far enough outside."""
        name = f'translate/{reg_max}_{up}_{reg_scale}'
        distance = unit(f'{name}/gt').double()
        reference = torch.full((len(distance), 4), 0.5, dtype=torch.float64)
        for edge in range(4):
            distances = torch.full_like(reference, 32.0)
            distances[:, edge] = distance
            boxes = distances_to_boxes(reference, distances, reg_scale)
            targets = edge_targets(reference, boxes, bin_values(reg_max, reg_scale, up), reg_scale)
            of_edge = EdgeTargets(*(x[:, edge] for x in targets))
            assert_targets(of_edge, unit(f'{name}/index').double(), unit(f'{name}/right').double())
        torch.testing.assert_close(unit(f'{name}/left'), 1 - unit(f'{name}/right'), **within(torch.float32))

    @pytest.mark.parametrize('reg_scale', [4, 8])
    def test_the_authors_boxes(self, reg_scale: int) -> None:
        targets = edge_targets(unit('points'), unit('boxes'), bin_values(32, reg_scale), reg_scale)
        name = f'bbox2distance/{reg_scale}'
        assert_targets(targets, unit(f'{name}/bin'), unit(f'{name}/right'))
        torch.testing.assert_close(unit(f'{name}/left'), 1 - unit(f'{name}/right'), **within(torch.float32))

    def test_by_hand(self) -> None:
        """Edges of a reference of two parts of 0.25 are moved by 0, -1 / 2, 3 / 2 and 9 parts; bins are those above."""
        truth = box_xyxy_to_cxcywh(torch.tensor([0.25, 0.375, 1.125, 3.0]))
        targets = edge_targets(torch.full((4,), 0.5), truth, bin_values(6, 2.0), 2.0)
        assert targets.left_bin[1:].tolist() == [1, 5, 5]
        assert_targets(targets, torch.tensor([3.0, 1.0, 5.0, 5.0]), torch.tensor([0.0, 0.5 / (2 - 2**0.5), 0.5, 1.0]))

    def test_they_give_the_truth_back(self) -> None:
        """The mean of the two bins moves each edge to the true one, where the bins reach it."""
        values = bin_values(32, 4).double()
        references = torch.rand(200, 4, dtype=torch.float64) * 0.5 + 0.25
        distances = (torch.rand(200, 4, dtype=torch.float64) - 0.25) * 5  # -1.25 to 3.75: no edges pass each other
        truth = distances_to_boxes(references, distances, 4.0)
        actual = two_bins(edge_targets(references, truth, values, 4.0), 33) @ values
        torch.testing.assert_close(actual, distances, **within(torch.float64))
        torch.testing.assert_close(distances_to_boxes(references, actual, 4.0), truth, **within(torch.float64))

    def test_a_reference_without_size(self) -> None:
        targets = edge_targets(torch.zeros(1, 4), torch.tensor([[0.5, 0.5, 0.2, 0.2]]), bin_values(32, 4), 4.0)
        assert targets.left_bin.tolist() == [[0, 0, 31, 31]]
        assert targets.right_share.tolist() == [[0.0, 0.0, 1.0, 1.0]]


class TestCrossEntropy:
    def test_is_least_at_the_two_bins(self) -> None:
        """Its gradient is the difference of the distributions: zero where they agree."""
        targets = EdgeTargets(torch.tensor([3, 0, 31, 16]), torch.tensor([0.25, 0.5, 0.75, 0.5], dtype=torch.float64))
        probabilities = two_bins(targets, 33)
        corners = torch.randn(4, 33, dtype=torch.float64, requires_grad=True)
        (gradient,) = torch.autograd.grad(edge_cross_entropy(corners, targets).sum(), corners)
        torch.testing.assert_close(gradient, corners.softmax(-1) - probabilities, **within(torch.float64))

    def test_of_uniform_logits(self) -> None:
        targets = EdgeTargets(torch.tensor([3, 0, 31, 16]), torch.rand(4))
        torch.testing.assert_close(edge_cross_entropy(torch.zeros(4, 33), targets), torch.full((4,), 33.0).log())


class TestDivergence:
    def test_is_zero_of_itself_and_blind_to_a_shift(self) -> None:
        corners = torch.randn(5, 4, 33, dtype=torch.float64)
        other = torch.randn_like(corners)
        assert distillation_divergence(corners, corners).abs().max() < 1e-12
        assert (distillation_divergence(corners, other) > 0).all()
        shifted = distillation_divergence(corners + 3, other - 2)
        torch.testing.assert_close(shifted, distillation_divergence(corners, other))

    def test_by_hand(self) -> None:
        """Probabilities 1/2, 1/2 of the teacher, 3/4, 1/4 of the student, after division of the logits by 2."""
        student = torch.tensor([[2 * math.log(3), 0.0]])
        expected = 4 * (0.5 * math.log(2 / 3) + 0.5 * math.log(2))
        divergence = distillation_divergence(student, torch.zeros(1, 2), temperature=2.0)
        torch.testing.assert_close(divergence, student.new_tensor([expected]))

    def test_one_teacher_for_all_layers(self) -> None:
        student, teacher = torch.randn(3, 5, 4, 9), torch.randn(5, 4, 9)
        each = torch.stack([distillation_divergence(layer, teacher) for layer in student])
        torch.testing.assert_close(distillation_divergence(student, teacher), each)


class TestBalancedMean:
    def test_by_hand(self) -> None:
        """Sums of four edges 8 and 4 of matched queries, 12, 16 and 20 of the others: means 1.5 and 4."""
        loss = torch.tensor([[[8.0, 12.0, 4.0, 16.0, 20.0]]])
        matched = torch.tensor([[[True, False, True, False, False]]])
        mean = balanced_mean(loss, matched, torch.tensor(3.0), torch.tensor(1.0))
        torch.testing.assert_close(mean, torch.tensor([(3 * 1.5 + 4) / 4]))

    @pytest.mark.parametrize(('all_matched', 'expected'), [(False, 0.25 * 2.0), (True, 0.75 * 2.0)])
    def test_an_empty_group_adds_nothing(self, all_matched: bool, expected: float) -> None:
        loss = torch.full((2, 3, 4), 8.0, requires_grad=True)
        matched = torch.full((2, 3, 4), all_matched)
        mean = balanced_mean(loss, matched, torch.tensor(3.0), torch.tensor(1.0))
        torch.testing.assert_close(mean, torch.full((2,), expected))
        mean.sum().backward()
        assert loss.grad.isfinite().all()

    def test_layers_apart(self) -> None:
        loss, matched = torch.rand(3, 2, 7), torch.rand(3, 2, 7) < 0.4
        weights = torch.tensor(2.0), torch.tensor(5.0)
        each = [balanced_mean(loss[[i]], matched[[i]], *weights) for i in range(3)]
        torch.testing.assert_close(balanced_mean(loss, matched, *weights), torch.cat(each))

    def test_the_batch_size_does_not_count(self) -> None:
        numbers = torch.tensor(12), torch.tensor(108)
        twice = torch.tensor(24), torch.tensor(216)
        torch.testing.assert_close(balance(*numbers, batch=2), balance(*twice, batch=4))


class TestTheAuthorsLosses:
    """Of one layer: 2 images x 30 matching queries, and the first 12 of them as denoising queries."""

    def pairs(self, denoising: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Image, query, and index into the image's truth."""
        if denoising:
            image, query, truth = [0] * 4 + [1] * 2, [3, 5, 1, 9, 8, 0], [2, 0, 3, 1, 0, 1]
            return torch.tensor(image), torch.tensor(query), torch.tensor(truth)
        query, truth = torch.cat([unit('assigned_0'), unit('assigned_1')], dim=1)
        return torch.tensor([0] * 4 + [1] * 2), query, truth

    def matched(self, truth: list[Tensor], denoising: bool) -> tuple[tuple[Tensor, Tensor], Tensor, Tensor]:
        """What indexes the matched queries, their true boxes, and the IoU of those."""
        image, query, index = self.pairs(denoising)
        true_boxes = torch.stack([truth[i][j] for i, j in zip(image, index)])
        boxes = unit('predicted_boxes')[image, query]
        return (image, query), true_boxes, box_iou_elementwise(*map(box_cxcywh_to_xyxy, (boxes, true_boxes)))

    @pytest.mark.parametrize(('denoising', 'name'), [(False, 'fgl'), (True, 'fgl_dn')])
    def test_fine_grained_localization(self, truth: list[Tensor], denoising: bool, name: str) -> None:
        corners = unit('corners').requires_grad_()
        at, true_boxes, iou = self.matched(truth, denoising)
        targets = edge_targets(unit('reference')[at], true_boxes, bin_values(32, 4), 4.0)
        loss = iou * edge_cross_entropy(corners.unflatten(-1, (4, 33))[at], targets).sum(-1)
        loss = loss.sum() / (12 if denoising else 6)
        assert loss.item() == about(UNITS[f'loss/{name}'].item(), 'sum')
        if not denoising:
            (gradient,) = torch.autograd.grad(loss, corners)
            torch.testing.assert_close(gradient, unit('grad/fgl'), **within(torch.float32))

    @pytest.mark.parametrize(('denoising', 'name'), [(False, 'ddf'), (True, 'ddf_dn')])
    def test_distillation(self, truth: list[Tensor], denoising: bool, name: str) -> None:
        num_queries = 12 if denoising else 30
        corners = unit('corners').requires_grad_()
        at, _, iou = self.matched(truth, denoising)
        weight = unit('logits').flip(1).sigmoid().amax(-1).index_put(at, iou)[:, :num_queries]
        matched = torch.zeros(2, num_queries, dtype=torch.bool).index_put(at, torch.tensor(True))
        student, teacher = (x.unflatten(-1, (4, 33))[:, :num_queries] for x in (corners, unit('teacher_corners')))
        loss = weight * distillation_divergence(student, teacher).sum(-1)
        # the denoising queries have the matching ones' weights, those of 6 queries of 60
        weights = balance(torch.tensor(4 * 6), torch.tensor(4 * 54), batch=2)
        torch.testing.assert_close(weights, (unit('num_pos').float(), unit('num_neg').float()), **within('sum'))
        mean = balanced_mean(loss[None], matched[None], *weights)
        assert mean.item() == about(UNITS[f'loss/{name}'].item(), 'sum')
        if not denoising:
            (gradient,) = torch.autograd.grad(mean, corners)
            # the largest is 3e-4
            torch.testing.assert_close(gradient, unit('grad/ddf'), rtol=1e-5, atol=1e-8)


def test_gradients() -> None:
    """Of all that is differentiated, against differences, in double precision."""
    values = bin_values(8, 4).double()
    corners, teacher = (torch.randn(2, 3, 4, 9, dtype=torch.float64, requires_grad=True) for _ in range(2))
    references = torch.rand(2, 3, 4, dtype=torch.float64, requires_grad=True)
    targets = edge_targets(references, torch.rand_like(references), values, 4.0)
    matched, weights = torch.rand(2, 3, 5) < 0.5, (torch.tensor(2.0).double(), torch.tensor(3.0).double())
    loss = torch.rand(2, 3, 5, dtype=torch.float64, requires_grad=True)
    assert not targets.right_share.requires_grad
    check = torch.autograd.gradcheck
    assert check(lambda x, r: distances_to_boxes(r, expected_distances(x, values), 4.0), (corners, references))
    assert check(lambda x: edge_cross_entropy(x, targets), (corners,))
    assert check(distillation_divergence, (corners, teacher))
    assert check(lambda x: balanced_mean(x, matched, *weights), (loss,))
