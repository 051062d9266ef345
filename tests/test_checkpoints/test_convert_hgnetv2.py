"""HGNetv2's weights in the files of D-FINE and DEIM, of timm and of Hugging Face."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable

import pytest
import torch
from tolerances import within
from torch import Tensor, nn

from mmdet_iouquery.checkpoints import convert, hgnetv2
from mmdet_iouquery.checkpoints.convert import CLASSIFIER, convert_accounted
from mmdet_iouquery.checkpoints.initializer import ConvertedPretrained
from mmdet_iouquery.checkpoints.prefix_map import PrefixMap
from mmdet_iouquery.errors import InputError

KEYS = json.loads((Path(__file__).resolve().parents[1] / 'data' / 'hgnetv2.keys.json').read_text())
NAMES = list(KEYS)


def build(name: str, **kwargs: Any) -> nn.Module:
    """Ours of a golden name, such as ``B0:lab``."""
    from mmdet.registry import MODELS

    arch, _, affine = name.partition(':')
    return MODELS.build({'type': 'HGNetv2', 'arch': arch, 'learnable_affine': affine == 'lab', **kwargs}).eval()


@pytest.mark.parametrize('name', NAMES)
def test_every_key_has_a_name_here_and_goes_back(name: str, fill: Callable[..., dict[str, Tensor]]) -> None:
    theirs = fill(KEYS[name])
    account = convert_accounted(theirs, 'hgnetv2_backbone')
    assert not account.dropped and account.weights.keys() == build(name).state_dict().keys()
    back = {hgnetv2.BACKBONE.to_theirs(key): value for key, value in account.weights.items()}
    assert list(back) == list(theirs) and all(back[key] is theirs[key] for key in theirs)


@pytest.mark.parametrize('style', [hgnetv2.AUTHORS, hgnetv2.TRANSFORMERS])
def test_below_a_detectors_prefix_the_names_are_the_same(style: hgnetv2.Style) -> None:
    bare = PrefixMap(hgnetv2.backbone('', '', style), 'a backbone')
    whole = PrefixMap(hgnetv2.backbone('model.backbone.', 'backbone.', style), 'a detector')
    for key in build('B0:lab').state_dict():
        theirs = whole.to_theirs(f'backbone.{key}')
        assert theirs == f'model.backbone.{bare.to_theirs(key)}' and whole.to_ours(theirs) == f'backbone.{key}'


def test_the_classifier_is_dropped_and_named(fill: Callable[..., dict[str, Tensor]]) -> None:
    classifier = dict.fromkeys(
        ['head.last_conv.0.weight', 'head.last_conv.2.scale', 'head.fc.weight', 'head.fc.bias'], torch.zeros(1)
    )
    account = convert_accounted({**fill(KEYS['B0:lab']), **classifier}, 'hgnetv2_backbone')
    assert account.dropped == {CLASSIFIER: list(classifier)}
    assert account.num_read == len(account.weights) + len(classifier)
    with pytest.raises(InputError, match=r"unknown key 'stages.0.blocks.0.layers.0.se.weight': .*timm's HGNetv2"):
        convert({'stages.0.blocks.0.layers.0.se.weight': torch.zeros(1)}, 'hgnetv2_backbone')


def test_the_backbone_of_a_config_starts_from_a_file(fill: Callable[..., dict[str, Tensor]], tmp_path: Path) -> None:
    theirs, path = fill(KEYS['B0:lab']), tmp_path / 'PPHGNetV2_B0_stage1.pth'
    torch.save(theirs, path)
    init_cfg = {'type': 'ConvertedPretrained', 'checkpoint': str(path), 'source': 'hgnetv2_backbone'}
    backbone = build('B0:lab', init_cfg=init_cfg, out_indices=(1, 2), frozen_stages=0)
    assert backbone.stem.conv1.affine.scale.item() == 1  # nothing is loaded at construction
    backbone.init_weights()
    own, weights = backbone.state_dict(), convert(theirs, 'hgnetv2_backbone')
    assert own.keys() == weights.keys() and all(torch.equal(own[key], weights[key]) for key in own)
    for name, difference in (
        ('B0', r'unknown to the module: stem\.conv1\.affine'),
        ('B1:lab', 'of another shape: stem'),
    ):
        with pytest.raises(InputError, match=difference):
            build(name, init_cfg=init_cfg).init_weights()


@pytest.mark.parametrize('size', ['Atto', 'Femto', 'Pico'])
def test_a_small_backbone_takes_its_share_of_b0s_weights(
    size: str, fill: Callable[..., dict[str, Tensor]], tmp_path: Path
) -> None:
    """All of Femto and Pico are there; of Atto not the kernels of 5 x 5 and what is twice as wide."""
    path = tmp_path / 'PPHGNetV2_B0_stage1.pth'
    torch.save(fill(KEYS['B0:lab']), path)
    init_cfg = {'type': 'ConvertedPretrained', 'checkpoint': str(path), 'source': 'hgnetv2_backbone', 'partial': True}
    backbone = build(f'{size}:lab', init_cfg=init_cfg)
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    backbone.init_weights()
    theirs, own = convert(torch.load(path, weights_only=True), 'hgnetv2_backbone'), backbone.state_dict()
    afresh = {key for key in own if theirs[key].shape != own[key].shape}
    assert all(torch.equal(own[key], (before if key in afresh else theirs)[key]) for key in own)
    last = 'stages.2.blocks.0.'
    kernels = {f'{last}layers.{i}.1.conv.weight' for i in range(3)}
    parts = ('conv.weight', 'norm.weight', 'norm.bias', 'norm.running_mean', 'norm.running_var')
    wide = {f'{last}aggregation.{i}.{part}' for i in range(2) for part in parts}
    assert afresh == (kernels | wide if size == 'Atto' else set())
    with pytest.raises(InputError, match=r'has nothing in common with Linear, of \d+ weights such as stem'):
        ConvertedPretrained(str(path), 'hgnetv2_backbone', partial=True)(nn.Linear(2, 2))


def disturb(module: nn.Module) -> nn.Module:
    """Norms and affines as after a training."""
    for name, parameter in module.named_parameters():
        if parameter.dim() == 1:
            nn.init.normal_(parameter, float(name.endswith(('weight', 'scale'))), 0.2)
    for name, buffer in module.named_buffers():
        if name.endswith('running_mean'):
            nn.init.normal_(buffer, std=0.2)
        elif name.endswith('running_var'):
            nn.init.uniform_(buffer, 0.5, 1.5)
    return module.eval()


def assert_equal_maps(ours: nn.Module, theirs: Callable[[Tensor], Any]) -> None:
    images = torch.rand(2, 3, 75, 109)
    with torch.no_grad():
        for x, expected in zip(ours(images), theirs(images)):
            torch.testing.assert_close(x, expected, **within('reference map'))


@pytest.mark.parametrize('name', ['B0:lab', 'B2:lab', 'B4'])
def test_timms_maps_are_ours(name: str) -> None:
    timm = pytest.importorskip('timm', exc_type=ImportError)  # it needs torchvision
    theirs = disturb(timm.create_model(f'hgnetv2_{name[:2].lower()}'))
    account, ours = convert_accounted(theirs.state_dict(), 'hgnetv2_backbone'), build(name)
    assert all(key.startswith('head.') for key in account.dropped[CLASSIFIER])
    ours.load_state_dict(account.weights, strict=True)
    assert_equal_maps(ours, lambda images: theirs.forward_intermediates(images, intermediates_only=True))


def test_hugging_faces_maps_are_ours() -> None:
    transformers = pytest.importorskip('transformers')
    if not hasattr(transformers, 'HGNetV2Backbone'):
        pytest.skip('this transformers is older than HGNetV2')
    # its defaults are B4
    config = transformers.HGNetV2Config(
        use_learnable_affine_block=True, out_features=['stage1', 'stage2', 'stage3', 'stage4']
    )
    theirs, ours = disturb(transformers.HGNetV2Backbone(config)), build('B4:lab')
    names = PrefixMap(hgnetv2.backbone('', '', hgnetv2.TRANSFORMERS), "Hugging Face's HGNetV2")
    weights = {names.to_ours(key): value for key, value in theirs.state_dict().items()}
    ours.load_state_dict(weights, strict=True)
    assert_equal_maps(ours, lambda images: theirs(images).feature_maps)
