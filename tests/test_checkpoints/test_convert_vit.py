"""Weights of ViTs in the files of DEIMv2, DINOv3, EdgeCrafter and Hugging Face, bare and in whole detectors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable

import pytest
import torch
from helpers import FAMILY, golden_weights, shipped_config, small_detector
from mmdet.registry import MODELS
from tolerances import within
from torch import Tensor, nn

from mmdet_iouquery.checkpoints import convert, convert_back, sources_of
from mmdet_iouquery.checkpoints.convert import KEY_BIAS_MASKS, MASK_TOKEN, POINT_COUNTS, REPEATED, convert_accounted
from mmdet_iouquery.checkpoints.preprocessing import preprocessing_of
from mmdet_iouquery.checkpoints.vit import BACKBONE, ECVIT, split_gates
from mmdet_iouquery.errors import InputError

DATA = Path(__file__).resolve().parents[1] / 'data'
FILES = {
    'tiny': ('deimv2_s_320x256', 'backbone.dinov3._model.', BACKBONE),
    'dinov3-s': ('deimv2_l_256x320', 'backbone.dinov3.', BACKBONE),
    'ecvit-tiny': ('ecdet_s_256x320', 'backbone.backbone.', ECVIT),
}
"""Golden, prefix and names of each; all heads are 64 wide."""


def build(arch: str, **kwargs: Any) -> Any:
    return MODELS.build({'type': 'VisionTransformer', 'arch': arch, **kwargs}).eval()


def theirs_of(arch: str, fill: Callable[..., dict[str, Tensor]]) -> dict[str, Tensor]:
    """A bare file as the authors have it."""
    golden, prefix, _ = FILES[arch]
    keys = json.loads((DATA / f'{golden}.keys.json').read_text())
    theirs = fill({key[len(prefix) :]: shape for key, shape in keys.items() if key.startswith(prefix)})
    theirs['rope_embed.periods'] = 100.0 ** (torch.arange(16) / 16)
    for key in theirs:
        if key.endswith('bias_mask'):
            theirs[key] = torch.tensor([1.0, 0.0, 1.0]).repeat_interleave(384)
    return theirs


@pytest.mark.parametrize('arch', FILES)
def test_every_key_has_a_name_here_and_goes_back(arch: str, fill: Callable[..., dict[str, Tensor]]) -> None:
    theirs = theirs_of(arch, fill)
    account = convert_accounted(theirs, 'vit_backbone')
    dropped = {reason: len(keys) for reason, keys in account.dropped.items()}
    assert dropped == ({MASK_TOKEN: 1, KEY_BIAS_MASKS: 12} if arch == 'dinov3-s' else {})
    assert (account.num_joined, account.num_made) == (0, 0)
    with torch.device('meta'):
        own = build(arch).state_dict()
    assert {key: x.shape for key, x in account.weights.items()} == {key: x.shape for key, x in own.items()}
    back = {FILES[arch][2].to_theirs(key): value for key, value in account.weights.items()}
    kept = {key: x for key, x in theirs.items() if not key.endswith(('mask_token', 'bias_mask'))}
    assert list(back) == list(kept) and all(back[key] is kept[key] for key in kept)


def test_an_adapters_vit_starts_from_a_file_and_the_rest_afresh(
    fill: Callable[..., dict[str, Tensor]], tmp_path: Path
) -> None:
    theirs, path = theirs_of('tiny', fill), tmp_path / 'vitt_distill.pt'
    torch.save(theirs, path)
    init_cfg = [
        {'type': 'ConvertedPretrained', 'checkpoint': str(path), 'source': 'vit_backbone', 'part': 'vit'},
        {'type': 'Constant', 'layer': 'BatchNorm2d', 'val': 3.0},
    ]
    adapter = MODELS.build({'type': 'ViTAdapter', 'arch': 'tiny', 'prior_channels': 4, 'init_cfg': init_cfg})
    adapter.init_weights()
    weights = convert(theirs, 'vit_backbone')
    assert all(torch.equal(x, weights[key]) for key, x in adapter.vit.state_dict().items())
    assert adapter.prior.convs[0].norm.weight.eq(3).all()

    init_cfg[0]['part'] = 'backbone'
    adapter = MODELS.build({'type': 'ViTAdapter', 'arch': 'tiny', 'init_cfg': init_cfg})
    with pytest.raises(
        InputError, match=r"^ViTAdapter has no part 'backbone' for .*; name one of vit, projections, or leave part out"
    ):
        adapter.init_weights()


def test_a_file_that_is_damaged_or_of_another_is_refused(fill: Callable[..., dict[str, Tensor]]) -> None:
    theirs = theirs_of('dinov3-s', fill)
    mask = 'blocks.3.attn.qkv.bias_mask'
    with pytest.raises(InputError, match=f'^{mask} must be 1 for queries .* NaN, .* get another$'):
        convert({**theirs, mask: torch.full((1152,), torch.nan)}, 'vit_backbone')
    with pytest.raises(InputError, match=r"^unknown key 'pos_embed'.*DEIMv2's or DINOv3's ViT"):
        convert({**theirs, 'pos_embed': torch.zeros(1)}, 'vit_backbone')
    half = {'blocks.0.mlp.w1.weight': torch.zeros(4, 2)}
    with pytest.raises(InputError, match=r'^blocks\.0\.mlp\.w1\.weight is half of .*\.w2\.weight is missing'):
        convert({**theirs, **half}, 'vit_backbone')
    with pytest.raises(InputError, match=r'w2.weight is of shape \(3, 2\) beside \(4, 2\)'):
        convert({**theirs, **half, 'blocks.0.mlp.w2.weight': torch.zeros(3, 2)}, 'vit_backbone')


@pytest.mark.parametrize('gated', [False, True])
def test_hugging_faces_maps_are_ours(gated: bool, tmp_path: Path) -> None:
    transformers = pytest.importorskip('transformers')
    if not hasattr(transformers, 'DINOv3ViTModel'):
        pytest.skip('this transformers is older than DINOv3')
    config = transformers.DINOv3ViTConfig(
        hidden_size=128,
        num_attention_heads=2,
        intermediate_size=96,
        num_hidden_layers=2,
        num_register_tokens=4,
        use_gated_mlp=gated,
        hidden_act='silu' if gated else 'gelu',
    )
    torch.manual_seed(0)
    theirs = transformers.DINOv3ViTModel(config).eval()
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, float(parameter.dim() == 1), 0.2)
    theirs.save_pretrained(tmp_path)
    size = {'embed_dims': 128, 'num_heads': 2, 'feedforward_channels': 96, 'depth': 2}
    ours = build('dinov3-s+' if gated else 'dinov3-s', size_cfg=size)
    ours.init_cfg = {'type': 'ConvertedPretrained', 'checkpoint': str(tmp_path), 'source': 'vit_backbone'}
    ours.init_weights()  # from the folder, whose names are older than those in memory
    account = convert_accounted(theirs.state_dict(), 'vit_backbone')
    assert account.dropped == {MASK_TOKEN: ['embeddings.mask_token']}
    # of each layer three weights and two biases; w1 and w2 too
    assert account.num_joined == 2 * (5 + 4 * gated) and account.num_made == 2 * (2 + 2 * gated) + 1
    assert all(torch.equal(x, account.weights[key]) for key, x in ours.state_dict().items())
    images = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        expected = theirs(images).last_hidden_state[:, 5:].transpose(1, 2).unflatten(2, (4, 6))
        torch.testing.assert_close(ours(images)[0], expected, **within('reference map'))


def test_a_gated_networks_layers_come_apart_again() -> None:
    torch.manual_seed(0)
    halves = {
        f'blocks.0.mlp.w{i}.{kind}': torch.rand(4, *shape)
        for i in (1, 2)
        for kind, shape in (('weight', (3,)), ('bias', ()))
    }
    ours = convert({**halves, 'blocks.0.mlp.w3.bias': torch.rand(3)}, 'vit_backbone')
    assert {key: tuple(x.shape) for key, x in ours.items()} == {
        'blocks.0.ffn.w12.weight': (8, 3),
        'blocks.0.ffn.w12.bias': (8,),
        'blocks.0.ffn.w3.bias': (3,),
    }
    back = split_gates({BACKBONE.to_theirs(key): x for key, x in ours.items()})
    assert all(torch.equal(back[key], x) for key, x in halves.items())


# --- whole detectors --------------------------------------------------------------------------------------------------

DETECTORS = {'deimv2_s_320x256': 'deimv2', 'deimv2_l_256x320': 'deimv2', 'ecdet_s_256x320': 'ecdet'}


@pytest.mark.parametrize('name', DETECTORS)
def test_every_key_of_a_detector_is_accounted_for_and_comes_back(name: str) -> None:
    """With the anchors that their files hold too; the token of hidden patches, which is not kept, is zero."""
    theirs, source = golden_weights(name), DETECTORS[name]
    account = convert_accounted(theirs, source)
    dropped = {reason: len(keys) for reason, keys in account.dropped.items()}
    dinov3 = {MASK_TOKEN: 1, KEY_BIAS_MASKS: 12} if '_l_' in name else {}
    assert dropped == {POINT_COUNTS: 4, REPEATED: 2, **dinov3}
    assert (account.num_joined, account.num_made) == (0, 0)
    back = convert_back(account.weights, source)
    assert back.keys() == {*theirs, 'decoder.anchors', 'decoder.valid_mask'}
    for key, x in theirs.items():
        assert torch.equal(x, back[key]) != key.endswith(('mask_token', 'num_points_scale')), key
    if dinov3:
        token = back['backbone.dinov3.mask_token']
        assert token.shape == theirs['backbone.dinov3.mask_token'].shape and not token.any()
    assert sources_of(theirs) == [source]


PROJECTION = {  # of one scale, as EdgeCrafter's code (706d037) makes it for L and X, from 384 channels to 256
    'conv.weight': (256, 384, 1, 1),
    'norm.weight': (256,),
    'norm.bias': (256,),
    'norm.running_mean': (256,),
    'norm.running_var': (256,),
    'norm.num_batches_tracked': (),
}


@pytest.mark.parametrize('size', ['l', 'x'])
def test_ecdets_projections_of_each_scale(size: str) -> None:
    """From the finest on; S and M, of which there is a golden file, have one."""
    theirs = {f'backbone.projector.{i}.{key}': torch.rand(shape) for i in range(3) for key, shape in PROJECTION.items()}
    ours = convert(theirs, 'ecdet')
    with torch.device('meta'):
        adapter = MODELS.build(shipped_config(f'ecdet/ecdet_ecvit-{size}_8xb4-50e_coco.py').model.backbone)
    shapes = {f'backbone.{key}': x.shape for key, x in adapter.state_dict().items() if not key.startswith('vit.')}
    assert {key: x.shape for key, x in ours.items()} == shapes and len(shapes) == 18
    back = convert_back(ours, 'ecdet')
    assert back.keys() == theirs.keys() and all(torch.equal(x, theirs[key]) for key, x in back.items())


def test_an_adapters_first_projection_is_of_the_finest_scale() -> None:
    """Each gives its number."""
    vit = {'embed_dims': 32, 'num_heads': 2, 'feedforward_channels': 48, 'depth': 2}
    adapter = MODELS.build(dict(type='ViTAdapter', arch='ecvit-s', size_cfg=vit, out_indices=(0, 1), tokens='mean'))
    for i, projection in enumerate(adapter.eval().projections):
        nn.init.zeros_(projection.conv.weight)
        nn.init.constant_(projection.norm.bias, i)
    maps = adapter(torch.rand(1, 3, 64, 96))
    assert [(x.shape[-2:], x.unique().tolist()) for x in maps] == [((8, 12), [0]), ((4, 6), [1]), ((2, 3), [2])]


def test_halves_of_gated_networks_are_apart_in_the_authors_files() -> None:
    """DEIMv2-X's ViT has them, of which a narrow one does for the names."""
    ours = small_detector(**FAMILY['DEIMv2-X']).state_dict()
    theirs = convert_back(ours, 'deimv2')
    first, second = (theirs[f'backbone.dinov3.blocks.2.mlp.w{i}.weight'] for i in (1, 2))
    assert torch.equal(torch.cat([first, second]), ours['backbone.vit.blocks.2.ffn.w12.weight'])
    assert theirs['backbone.dinov3.blocks.0.attn.qkv.bias_mask'].tolist() == [1.0] * 32 + [0.0] * 32 + [1.0] * 32
    account = convert_accounted(theirs, 'deimv2')
    assert (account.num_joined, account.num_made) == (3 * 4, 3 * 2)
    assert account.weights.keys() == ours.keys()
    assert all(torch.equal(x, ours[key]) for key, x in account.weights.items())


def test_images_are_normalised_as_the_authors_do(tmp_path: Path) -> None:
    """With ImageNet's mean and standard deviation where there is a ViT."""
    for name, source in (('deimv2_s_320x256', 'deimv2'), ('ecdet_s_256x320', 'ecdet')):
        keys = [key for key in golden_weights(name) if key.startswith('backbone.')]
        noted = preprocessing_of(source, {'model': dict.fromkeys(keys, torch.zeros(1))}, tmp_path)
        assert noted is not None and noted['mean'] == [123.675, 116.28, 103.53] and noted['scale'] == [640, 640]
    noted = preprocessing_of('deimv2', {'model': {'backbone.stem.stem1.conv.weight': torch.zeros(1)}}, tmp_path)
    assert noted is not None and noted['mean'] == [0.0] * 3 and 'scale' not in noted
