"""Checkpoints are whole or absent, the newest complete one is found, and one that does not fit is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from helpers import small_detector
from mmengine.fileio import get_file_backend
from torch import nn

from mmdet_iouquery.engine.checkpoint_check import check_checkpoint, load_weights
from mmdet_iouquery.engine.resume import checkpoint_to_resume, latest_checkpoint
from mmdet_iouquery.errors import InputError


def save(path: Path, value: float = 0.0) -> Path:
    torch.save({'state_dict': {'w': torch.full((9,), value)}}, path)
    return path


def tear(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def age(path: Path, seconds: int) -> None:
    os.utime(path, (1_700_000_000 - seconds,) * 2)


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backend, path = get_file_backend(backend_args={'backend': 'atomic'}), tmp_path / 'new' / 'epoch_1.pth'
    backend.put(b'first', path)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, 'fsync', killed)
    with pytest.raises(KeyboardInterrupt):
        backend.put(b'second', path)
    assert path.read_bytes() == b'first'
    monkeypatch.undo()
    backend.put(b'third', path)
    assert path.read_bytes() == b'third' and list(path.parent.iterdir()) == [path]


def test_newest_complete_checkpoint(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path) is None
    first, second = save(tmp_path / 'iter_10.pth'), save(tmp_path / 'iter_20.pth')
    age(first, 20)
    age(second, 10)
    assert latest_checkpoint(tmp_path) == second
    (tmp_path / 'last_checkpoint').write_text(str(first))
    assert latest_checkpoint(tmp_path) == first
    (tmp_path / 'last_checkpoint').write_text(f'/gone/{second.name}')
    assert latest_checkpoint(tmp_path) == second, 'the folder was moved'
    tear(second)
    assert latest_checkpoint(tmp_path) == first, 'the newest is torn'
    (tmp_path / 'last_checkpoint').write_text('')
    assert latest_checkpoint(tmp_path) == first, 'the note is torn'


def test_a_named_checkpoint_must_be_there_and_whole(tmp_path: Path) -> None:
    with pytest.raises(InputError, match='there is no checkpoint .*none.pth'):
        checkpoint_to_resume(tmp_path / 'none.pth')
    tear(save(tmp_path / 'torn.pth'))
    with pytest.raises(InputError, match='torn.pth is not a complete checkpoint'):
        checkpoint_to_resume(tmp_path / 'torn.pth')


@pytest.fixture(scope='module')
def detector() -> nn.Module:
    return small_detector()


def test_a_fitting_checkpoint_passes(detector: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / 'ours.pth'
    torch.save({'state_dict': {f'module.{k}': v for k, v in detector.state_dict().items()}}, path)
    check_checkpoint(detector, path)
    assert set(load_weights(path)) == set(detector.state_dict())


def test_other_classes_are_told_from_another_architecture(detector: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / 'other.pth'
    torch.save({'state_dict': small_detector(bbox_head__num_classes=7).state_dict()}, path)
    with pytest.raises(InputError, match=r'other.pth was trained for another number of classes.*7 rows.*needs 5'):
        check_checkpoint(detector, path)
    torch.save({'state_dict': small_detector(bbox_head__decoder__num_layers=2).state_dict()}, path)
    with pytest.raises(InputError, match=r'other.pth does not fit the model.*missing \(such as bbox_head.decoder'):
        check_checkpoint(detector, path)
    torch.save({'state_dict': {**detector.state_dict(), 'roi_head.weight': torch.zeros(1)}}, path)
    with pytest.raises(InputError, match=r'1 unknown to the model \(such as roi_head.weight\)'):
        check_checkpoint(detector, path)


@pytest.mark.parametrize(
    ('content', 'message'), [(None, 'there is no file .*x.pth'), (b'text', 'x.pth is torn or no checkpoint')]
)
def test_no_checkpoint_at_all(detector: nn.Module, tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / 'x.pth'
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        check_checkpoint(detector, path)
