"""Weights of any source for the classes at hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers import small_detector
from torch import Tensor

from mmdet_iouquery.apps.train.weights import fitted_weights
from mmdet_iouquery.checkpoints import convert_back, sources_of
from mmdet_iouquery.checkpoints.class_names import parse_class_names
from mmdet_iouquery.errors import InputError

HEAD = 'bbox_head.decoder.cls_heads.0.weight'


@pytest.fixture(scope='module')
def weights() -> dict[str, Tensor]:
    """Of a detector of COCO's 80 classes."""
    torch.manual_seed(0)
    return small_detector(bbox_head__num_classes=80).state_dict()


def loaded(path: Path) -> dict[str, Tensor]:
    return torch.load(path, weights_only=True)['state_dict']


def test_the_same_classes_are_taken_as_they_are(weights: dict[str, Tensor], tmp_path: Path) -> None:
    coco = parse_class_names('coco')
    for meta in (dict(dataset_meta=dict(classes=tuple(coco))), {}):  # as many classes, whose names nobody says
        torch.save(dict(state_dict=weights, meta=meta), tmp_path / 'own.pth')
        file, written = fitted_weights(tmp_path / 'own.pth', coco, tmp_path / 'out')
        assert file == tmp_path / 'own.pth' and 'taken as it is' in written()


@pytest.mark.parametrize('source', ['mmdet', 'rtdetr'])
def test_a_class_that_is_known_keeps_its_row(source: str, weights: dict[str, Tensor], tmp_path: Path) -> None:
    """COCO's 80, told by their number where no names are noted; of the authors' names as of ours; twice."""
    content = dict(state_dict=weights) if source == 'mmdet' else dict(model=convert_back(weights, source))
    torch.save(content, tmp_path / 'coco.pth')
    for _ in range(2):
        file, written = fitted_weights(tmp_path / 'coco.pth', ('dog', 'lynx'), tmp_path / 'out')
        output = written()
    assert file == tmp_path / 'out' / 'weights.pth'
    assert 'classes kept: dog' in output and 'classes started afresh: lynx' in output
    new = loaded(file)
    dog = parse_class_names('coco').index('dog')
    assert torch.equal(new[HEAD][0], weights[HEAD][dog]) and len(new[HEAD]) == 2
    same = [key for key in weights if 'cls_head' not in key and 'label_embedding' not in key]
    assert len(same) > 200 and all(torch.equal(new[key], weights[key]) for key in same if key in new)


def test_names_in_the_file_come_first(weights: dict[str, Tensor], tmp_path: Path) -> None:
    """Eighty of another set are no COCO's."""
    names = [f'part {i}' for i in range(80)]
    torch.save(dict(state_dict=weights, meta=dict(dataset_meta=dict(classes=names))), tmp_path / 'parts.pth')
    file, written = fitted_weights(tmp_path / 'parts.pth', ('dog', 'part 7'), tmp_path / 'out')
    written()
    assert torch.equal(loaded(file)[HEAD][1], weights[HEAD][7])
    assert not (weights[HEAD] == loaded(file)[HEAD][0]).all(dim=1).any()


def test_what_cannot_be_told_is_said(tmp_path: Path) -> None:
    torch.save(dict(state_dict=small_detector(bbox_head__num_classes=7).state_dict()), tmp_path / 'seven.pth')
    with pytest.raises(InputError, match='has 7 classes and no names for them, and the data has 2; give the names by'):
        fitted_weights(tmp_path / 'seven.pth', ('dog', 'cat'), tmp_path / 'out')
    torch.save(dict(state_dict={'conv.weight': torch.zeros(1)}), tmp_path / 'other.pth')
    with pytest.raises(InputError, match=r'other.pth holds no detector of this package'):
        fitted_weights(tmp_path / 'other.pth', ('dog',), tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


def test_sources_by_their_keys(weights: dict[str, Tensor]) -> None:
    assert sources_of(weights) == ['mmdet']
    assert sources_of(convert_back(weights, 'rtdetr')) == ['rtdetr']
    assert sources_of(convert_back(weights, 'rtdetrv2')) == ['rtdetrv2', 'deim']
    assert sources_of({'nothing': torch.zeros(1)}) == []
