from __future__ import annotations

import functools
import os
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Callable

import pytest
import torch
from helpers import RunsCode
from mmengine.registry import DefaultScope
from torch import Tensor

from mmdet_iouquery.checkpoints import initializer, rtdetr
from mmdet_iouquery.checkpoints.convert import convert_back
from mmdet_iouquery.errors import InputError


@pytest.fixture(scope='module')
def weights(fill: Callable[..., dict[str, Tensor]]) -> dict[str, Tensor]:
    """A ResNet-vd's state dict with random weights and statistics, our names."""
    return fill({key: value.shape for key, value in build_backbone().state_dict().items()})


@pytest.fixture(scope='module')
def file(weights: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as the authors would publish it."""
    path = tmp_path_factory.mktemp('backbone') / 'ResNet18_vd.pth'
    torch.save({rtdetr.BACKBONE.to_theirs(key): value for key, value in weights.items()}, path)
    return path


def build_backbone(depth: int = 18, **kwargs: Any) -> Any:
    from mmdet.registry import MODELS

    return MODELS.build({'type': 'ResNetVd', 'depth': depth, **kwargs})


def init_cfg(path: object, **kwargs: Any) -> dict:
    return {'type': 'ConvertedPretrained', 'checkpoint': str(path), 'source': 'rtdetr_backbone', **kwargs}


def assert_loaded(module: torch.nn.Module, weights: dict[str, Tensor]) -> None:
    own = module.state_dict()
    assert own.keys() == weights.keys()
    assert all(torch.equal(own[key], weights[key]) for key in own)


@pytest.fixture(params=[None, 'mmdet'])
def scope(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str | None:
    """With a default scope, as under mmengine's Runner, and without."""
    current = None
    if request.param is not None:
        current = DefaultScope.get_instance(f'test_{request.param}', scope_name=request.param)
    monkeypatch.setattr(DefaultScope, 'get_current_instance', classmethod(lambda cls: current))
    return request.param


def test_the_backbone_ends_up_with_the_weights(
    scope: str | None, file: Path, weights: dict[str, Tensor], build_detector: Callable[..., Any]
) -> None:
    backbone = build_backbone(init_cfg=init_cfg(file))
    backbone.init_weights()
    assert_loaded(backbone, weights)

    detector = build_detector(18, num_layers=1, backbone={'init_cfg': init_cfg(file)})
    detector.init_weights()
    assert_loaded(detector.backbone, weights)


def test_a_frozen_backbones_file_without_counters_fits(file: Path, weights: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / 'frozen.pth'
    content = torch.load(file, weights_only=True)
    torch.save({key: value for key, value in content.items() if not key.endswith('num_batches_tracked')}, path)
    backbone = build_backbone(init_cfg=init_cfg(path), frozen_stages=0, norm_cfg={'type': 'BN', 'requires_grad': False})
    backbone.init_weights()
    assert_loaded(backbone, weights)


def test_the_whole_detector_keeps_what_was_loaded(
    golden_weights: Callable[..., dict[str, Tensor]], golden_detector: Callable[..., Any], tmp_path: Path
) -> None:
    """Its children have initialisations of their own, which mmengine runs after the parent's."""
    name = 'rtdetr_r18_320x320'
    theirs, path = golden_weights(name), tmp_path / 'whole.pth'
    torch.save({'ema': {'module': theirs}}, path)
    detector = golden_detector(name)
    detector.init_cfg = init_cfg(path, source='rtdetr')
    detector.bbox_head.init_cfg = {'type': 'Constant', 'layer': 'Linear', 'val': 0.0}
    detector.init_weights()
    back = convert_back(detector.state_dict(), 'rtdetr')
    assert all(torch.equal(back[key], theirs[key]) for key in theirs)

    backbone = build_backbone(init_cfg=init_cfg(path, source='rtdetr', prefix='backbone.'))
    backbone.init_weights()
    assert_loaded(backbone, detector.backbone.state_dict())


def test_mmengine_is_told_where_the_weights_came_from(file: Path) -> None:
    backbone, seen = build_backbone(init_cfg=init_cfg(file)), []
    backbone._dump_init_info = lambda: seen.extend(info['init_info'] for info in backbone._params_init_info.values())
    backbone.init_weights()
    assert len(seen) == len(list(backbone.parameters()))
    assert set(seen) == {f'ConvertedPretrained: load rtdetr_backbone from {file}'}


def test_a_file_that_does_not_fit_is_refused_and_changes_nothing(file: Path, tmp_path: Path) -> None:
    content, path = torch.load(file, weights_only=True), tmp_path / 'other.pth'

    def refused(message: str, depth: int = 18) -> None:
        backbone = build_backbone(depth, init_cfg=init_cfg(path))
        before = {key: value.clone() for key, value in backbone.state_dict().items()}
        torch.save(content, path)
        with pytest.raises(InputError, match=message):
            backbone.init_weights()
        assert_loaded(backbone, before)

    refused(r'does not fit ResNetVd: missing in the file: layer1\.2\.', depth=34)
    key = 'conv1.conv1_1.conv.weight'
    content[key] = content[key][:1]
    refused(r'of another shape: stem\.0\.weight \(1, 3, 3, 3\) for \(32, 3, 3, 3\)')
    del content[key]
    refused(r'missing in the file: stem\.0\.weight\.')
    content['res_layers.0.blocks.5.branch2a.conv.weight'] = content.pop('res_layers.0.blocks.0.branch2a.conv.weight')
    refused(r'unknown to the module: layer1\.5\.conv1\.weight')
    content['fc.weight'] = torch.zeros(1)
    refused("unknown key 'fc.weight'")


@pytest.fixture
def address(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Where a server on this machine hands out the file's folder; downloads go to a fresh cache."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'cache'))

    class Silent(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Silent, directory=str(file.parent)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f'http://127.0.0.1:{server.server_address[1]}'
    server.shutdown()
    server.server_close()
    thread.join()


def test_an_address_is_downloaded_and_code_in_it_refused(
    address: str, file: Path, weights: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = build_backbone(init_cfg=init_cfg(f'{address}/{file.name}'))
    backbone.init_weights()
    assert_loaded(backbone, weights)

    marker = tmp_path / 'it ran'
    monkeypatch.setenv('MARKER_FOLDER', str(marker))
    torch.save(RunsCode(), file.with_name('code.pth'))
    with pytest.raises(InputError, match=r'code\.pth holds more than tensors'):
        build_backbone(init_cfg=init_cfg(f'{address}/code.pth')).init_weights()
    assert not marker.exists() and 'TORCH_FORCE_WEIGHTS_ONLY_LOAD' not in os.environ


def test_it_is_registered_where_mmengine_and_mmdet_look() -> None:
    from mmdet.registry import WEIGHT_INITIALIZERS as OF_MMDET
    from mmengine.registry import WEIGHT_INITIALIZERS as OF_MMENGINE

    assert OF_MMDET.get('ConvertedPretrained') is OF_MMENGINE.get('ConvertedPretrained')
    assert OF_MMENGINE.get('ConvertedPretrained') is initializer.ConvertedPretrained


def test_an_address_that_cannot_be_fetched_is_said_with_the_way_out() -> None:
    # nobody listens on port 9 of this machine
    with pytest.raises(InputError, match=r'cannot fetch http://127.0.0.1:9/none.pth.*local file.*None'):
        initializer.load_checkpoint('http://127.0.0.1:9/none.pth')
