"""Which models the page offers, and in what order."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from demo_cases import checkpoint
from exported_files import write_model

from mmdet_iouquery.apps.demo.catalogue import ListedModel, found_models, named_model
from mmdet_iouquery.apps.demo.command import demo, is_loopback, reach
from mmdet_iouquery.apps.demo.model import Shelf
from mmdet_iouquery.errors import InputError


def test_the_quickstarts_checkpoints_come_first_then_the_newest_runs(tmp_path: Path) -> None:
    checkpoint(tmp_path / 'quickstart' / 'iter_450.pth', age=90)
    checkpoint(tmp_path / 'quickstart' / 'iter_800.pth', age=80)
    checkpoint(tmp_path / 'old' / 'epoch_9.pth', age=70, config='rtdetr.py')
    checkpoint(tmp_path / 'compared' / 'new' / 'seed_0' / 'iter_100.pth', age=10)
    checkpoint(tmp_path / 'compared' / 'new' / 'seed_0' / 'iter_50.pth', age=75)
    checkpoint(tmp_path / 'without_config' / 'iter_1.pth', age=0, config=None)
    (tmp_path / 'old' / 'torn.pth').write_bytes(b'PK')
    models = found_models(tmp_path)
    assert [model.name for model in models] == [
        'quickstart/iter_800.pth',
        'quickstart/iter_450.pth',
        'compared/new/seed_0/iter_100.pth',
        'compared/new/seed_0/iter_50.pth',
        'old/epoch_9.pth',
    ]
    assert models[0].checkpoint == tmp_path / 'quickstart' / 'iter_800.pth'
    assert [model.config and model.config.name for model in models] == ['config.py'] * 4 + ['rtdetr.py']
    assert found_models(tmp_path / 'nowhere') == []


def test_exported_files_come_last_in_their_run_and_need_no_config(tmp_path: Path) -> None:
    checkpoint(tmp_path / 'run' / 'iter_1.pth', age=50)
    write_model(tmp_path / 'run' / 'model.onnx')
    (tmp_path / 'alone').mkdir()
    write_model(tmp_path / 'alone' / 'model.onnx')
    (tmp_path / 'run' / 'notes.xml').write_text('<annotation/>')  # without weights beside it, not OpenVINO's
    os.utime(tmp_path / 'alone' / 'model.onnx', (1e9 - 60, 1e9 - 60))
    models = found_models(tmp_path)
    assert [model.name for model in models] == ['run/iter_1.pth', 'run/model.onnx', 'alone/model.onnx']
    assert [model.config for model in models] == [tmp_path / 'run' / 'config.py'] * 2 + [None]
    assert named_model(tmp_path / 'alone' / 'model.onnx').config is None


def test_a_checkpoint_is_named_with_its_config_or_has_it_beside_it(tmp_path: Path) -> None:
    beside = checkpoint(tmp_path / 'run' / 'iter_1.pth', age=0)
    alone = checkpoint(tmp_path / 'alone' / 'iter_1.pth', age=0, config=None)
    assert named_model(beside) == ListedModel(str(beside), tmp_path / 'run' / 'config.py', beside)
    shipped = named_model(alone, 'rtdetr/rtdetr_r18vd_8xb2-72e_coco.py')
    assert shipped.config is not None
    assert shipped.config.is_file() and shipped.config.name == 'rtdetr_r18vd_8xb2-72e_coco.py'
    with pytest.raises(InputError, match=r'no config beside .*alone.*--config'):
        named_model(alone)
    with pytest.raises(InputError, match=r'there is no checkpoint .*nowhere\.pth'):
        named_model(tmp_path / 'nowhere.pth')
    with pytest.raises(InputError, match='--checkpoint'):
        demo(['--config', 'config.py'])


def test_a_shelf_reads_a_model_once_until_its_file_changes(tmp_path: Path) -> None:
    path = write_model(tmp_path / 'model.onnx')
    shelf = Shelf(lambda: found_models(tmp_path))
    with pytest.raises(InputError, match=r"there is no model 'other'; name one of these: model\.onnx"):
        shelf.model('other')
    first = shelf.model('model.onnx')
    assert shelf.model('model.onnx') is first
    os.utime(path, (1e9, 1e9))
    assert shelf.model('model.onnx') is not first
    path.write_bytes(b'no model')
    with pytest.raises(InputError, match=r'model\.onnx'):
        shelf.model('model.onnx')
    path.unlink()
    with pytest.raises(InputError, match=r'model\.onnx is gone: No such file or directory; load the page again'):
        shelf.model('model.onnx')
    assert shelf.names() == []


def test_who_can_reach_the_page_is_said() -> None:
    hosts = ('127.0.0.1', '127.0.0.2', '::1', 'localhost', '0.0.0.0', '192.168.1.2', 'server.example')
    assert [is_loopback(host) for host in hosts] == [True] * 4 + [False] * 3
    assert reach(None).startswith('whoever reaches this machine over the network') and '--password' in reach(None)
    assert 'and knows the password' in reach('word') and '--password' not in reach('word')
