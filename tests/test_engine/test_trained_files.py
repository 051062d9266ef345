"""What a folder stands for on a command line: its config, and which of its checkpoints."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from mmdet_iouquery.apps.demo.catalogue import named_model
from mmdet_iouquery.config_files import model_name
from mmdet_iouquery.engine.trained_files import model_files, model_pairs
from mmdet_iouquery.errors import InputError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A work folder, its files as old as they are listed."""
    path = tmp_path / 'run'
    path.mkdir()
    (path / 'rtdetr.py').write_text('')
    for age, name in enumerate(('best_coco_bbox_mAP_iter_2', 'iter_2', 'iter_4', 'iter_6')):
        torch.save({'state_dict': {}}, path / f'{name}.pth')
        os.utime(path / f'{name}.pth', (age, age))
    return path


def taken(folder: Path) -> tuple[str, str]:
    config, checkpoint = (Path(file) for file in model_files([str(folder)]))
    assert config.parent == checkpoint.parent == folder
    return config.name, checkpoint.name


def tear(path: Path) -> None:
    before = path.stat()
    path.write_bytes(path.read_bytes()[:-40])
    os.utime(path, (before.st_atime, before.st_mtime))


def test_two_words_are_what_they_say() -> None:
    assert model_files(['nowhere.py', 'nowhere.pth']) == ('nowhere.py', 'nowhere.pth')


def test_of_a_folder_the_best_checkpoint_is_meant_or_the_newest_whole_one(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert taken(folder) == ('rtdetr.py', 'best_coco_bbox_mAP_iter_2.pth')
    best = folder / 'best_coco_bbox_mAP_iter_2.pth'
    assert capsys.readouterr().out == f'note: {folder} stands for {folder / "rtdetr.py"} and {best}\n'
    tear(best)
    assert taken(folder)[1] == 'iter_6.pth'
    tear(folder / 'iter_6.pth')
    assert taken(folder)[1] == 'iter_4.pth'


def test_the_quickstarts_config_comes_before_others(folder: Path) -> None:
    (folder / 'config.py').write_text('')
    os.utime(folder / 'config.py', (0, 0))
    assert taken(folder)[0] == 'config.py'


def test_the_model_of_a_config_py_is_called_as_its_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [model_name(path) for path in (folder / 'config.py', folder / 'rtdetr.py')] == ['run', 'rtdetr']
    monkeypatch.chdir(folder)
    assert model_name('config.py') == 'run'


def test_a_folder_to_share(tmp_path: Path) -> None:
    (tmp_path / 'config.py').write_text('')
    (tmp_path / 'model.safetensors').write_bytes(b'')
    assert taken(tmp_path) == ('config.py', 'model.safetensors')


def test_what_stands_for_nothing_is_refused(tmp_path: Path) -> None:
    for arguments, message in (
        (['work_dirs/none'], r'^there is no file or folder work_dirs/none; correct the path, or name a shipped config'),
        (['rtdetr_r18vd'], r'^rtdetr_r18vd: name a config and a checkpoint, CONFIG CHECKPOINT, or the work folder'),
        ([str(tmp_path)], 'has no config'),
        (['a', 'b', 'c'], '^a b c: name a config'),
    ):
        with pytest.raises(InputError, match=message):
            model_files(arguments)
    (tmp_path / 'config.py').write_text('')
    with pytest.raises(InputError, match='has no whole checkpoint'):
        model_files([str(tmp_path)])


def test_pairs_and_folders_mix(folder: Path) -> None:
    best = folder / 'best_coco_bbox_mAP_iter_2.pth'
    actual = model_pairs(['a.py', 'a.pth', str(folder), 'b.py', 'b.pth'])
    assert actual == [('a.py', 'a.pth'), (str(folder / 'rtdetr.py'), str(best)), ('b.py', 'b.pth')]
    with pytest.raises(InputError, match=r'models come in pairs .* and there are 3 words: a b c; .* or work folders'):
        model_pairs(['a', 'b', 'c'])


def test_the_demo_takes_a_folder(folder: Path) -> None:
    model = named_model(folder)
    assert (model.config, model.checkpoint) == (folder / 'rtdetr.py', folder / 'best_coco_bbox_mAP_iter_2.pth')
