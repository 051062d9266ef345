"""The cosine of a student's and a teacher's vectors: by hand, and which grids and positions are compared."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mmdet_iouquery.models.losses import CosineFeatureLoss
from mmdet_iouquery.models.losses.feature_losses import resized


def vectors(*columns: tuple[float, float]) -> torch.Tensor:
    """A map (1, 2, 1, w)."""
    return torch.tensor(columns, dtype=torch.float32).T[None, :, None]


def test_the_mean_of_one_minus_the_cosine() -> None:
    """The same direction, a right angle, the opposite and 60 degrees: 0, 1, 2 and 0.5; lengths do not count."""
    student = vectors((3, 4), (0, 2), (1, 0), (1, 0)).requires_grad_()
    teacher = vectors((0.6, 0.8), (5, 0), (-7, 0), (1, 3**0.5))
    assert CosineFeatureLoss(loss_weight=5.0)(student, teacher).item() == pytest.approx(5 * 3.5 / 4)
    weight = torch.tensor([[[1.0, 0.0, 1.0, 1.0]]])
    loss = CosineFeatureLoss(loss_weight=1.0)(student, teacher, weight)
    assert loss.item() == pytest.approx(2.5 / 3)
    loss.backward()
    assert student.grad[..., 1].abs().max() == 0  # it does not count
    along = (student * student.grad).sum(1)
    assert along.abs().max() < 1e-7  # a longer vector is no better
    assert CosineFeatureLoss()(student, teacher, torch.zeros(1, 1, 4)).item() == 0


def test_another_grid_is_averaged_or_interpolated() -> None:
    x = torch.randn(2, 3, 4, 6, dtype=torch.double)
    assert resized(x, (4, 6)) is x
    halved = F.interpolate(x, size=(2, 3), mode='bilinear', align_corners=False)
    torch.testing.assert_close(resized(x, (2, 3)), halved)  # as the authors' code has it
    torch.testing.assert_close(resized(x, (1, 2)), x.reshape(2, 3, 1, 4, 2, 3).mean((3, 5)))  # every vector counts
    assert not torch.allclose(resized(x, (1, 2)), F.interpolate(x, size=(1, 2), mode='bilinear', align_corners=False))
    torch.testing.assert_close(resized(x, (3, 5)), F.interpolate(x, size=(3, 5), mode='bilinear', align_corners=False))
    assert resized(x, (8, 9)).shape == (2, 3, 8, 9)


@pytest.mark.parametrize('weight', [-1, float('nan'), 'five'])
def test_a_weight_is_a_number(weight: object) -> None:
    with pytest.raises(ValueError, match='loss_weight must be a number of at least 0, got'):
        CosineFeatureLoss(loss_weight=weight)  # type: ignore[arg-type]
