"""D-FINE of Hugging Face: the same numbers from converted weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable

import pytest
import torch
from helpers import assert_same_weights, build_detector, difference_as_sets
from torch import Tensor

from mmdet_iouquery.checkpoints import convert, convert_back
from mmdet_iouquery.checkpoints.convert import POINT_COUNTS, REPEATED, convert_accounted
from mmdet_iouquery.checkpoints.files import read_checkpoint
from mmdet_iouquery.errors import InputError
from mmdet_iouquery.structures import Predictions

pytest.importorskip('transformers')
pytest.importorskip('safetensors')

QUERIES, CLASSES, LAYERS, WIDTH, HEADS, FFN = 60, 7, 3, 32, 4, 48
CONSTANTS = ('num_points_scale', 'decoder.up', 'decoder.reg_scale')

SETTINGS: dict[str, dict[str, Any]] = {
    'two maps': {'maps': [512, 1024], 'points': [6, 6], 'neck': WIDTH, 'affine': True, 'reg_scale': 4.0},
    'three maps': {'maps': [256, 512, 1024], 'points': [3, 6, 3], 'neck': 48, 'affine': False, 'reg_scale': 8.0},
}
"""Narrow D-FINE-N, and one whose decoder projects the neck's maps, with D-FINE-X's bins and no learnable affines."""


@pytest.fixture(scope='module', params=list(SETTINGS))
def setting(request: pytest.FixtureRequest) -> dict[str, Any]:
    return SETTINGS[request.param]


@pytest.fixture(scope='module')
def theirs(setting: dict[str, Any], fill: Callable[..., dict[str, Tensor]]) -> Any:
    """Their model on an HGNetv2-B0, every weight and running statistic random."""
    from transformers import DFineConfig, DFineForObjectDetection, HGNetV2Config

    levels = len(setting['maps'])
    backbone = HGNetV2Config(
        stem_channels=[3, 16, 16],
        stage_in_channels=[16, 64, 256, 512],
        stage_mid_channels=[16, 32, 64, 128],
        stage_out_channels=[64, 256, 512, 1024],
        stage_num_blocks=[1, 1, 2, 1],
        stage_downsample=[False, True, True, True],
        stage_light_block=[False, False, True, True],
        stage_kernel_size=[3, 3, 5, 5],
        stage_numb_of_layers=[3, 3, 3, 3],
        hidden_sizes=[64, 256, 512, 1024],
        out_features=['stage2', 'stage3', 'stage4'][-levels:],
        use_learnable_affine_block=setting['affine'],
    )
    config = DFineConfig(
        backbone_config=backbone,
        feat_strides=[8, 16, 32][-levels:],
        encode_proj_layers=[levels - 1],
        encoder_in_channels=setting['maps'],
        encoder_hidden_dim=setting['neck'],
        encoder_ffn_dim=FFN,
        encoder_attention_heads=HEADS,
        hidden_expansion=0.5,
        depth_mult=0.5,
        d_model=WIDTH,
        decoder_in_channels=[setting['neck']] * levels,
        num_feature_levels=levels,
        decoder_layers=LAYERS,
        decoder_ffn_dim=FFN,
        decoder_attention_heads=HEADS,
        decoder_n_points=setting['points'],
        reg_scale=setting['reg_scale'],
        num_labels=CLASSES,
        num_queries=QUERIES,
    )
    model = DFineForObjectDetection(config).eval()
    weights = fill({k: value.shape for k, value in model.state_dict().items() if not k.endswith(CONSTANTS)})
    for key in weights:
        weights[key] += key.endswith('lab.scale')  # near 1: a product of many near 0 leaves nothing of the image
    model.load_state_dict(weights, strict=False)
    return model


@pytest.fixture(scope='module')
def ours(setting: dict[str, Any]) -> Any:
    """A detector of the same sizes, with other weights."""
    levels = len(setting['maps'])
    return build_detector(
        'dfine/dfine_hgnetv2-s_8xb4-132e_coco.py',
        backbone__out_indices=(1, 2, 3)[-levels:],
        backbone__learnable_affine=setting['affine'],
        neck__in_channels=setting['maps'],
        neck__out_channels=setting['neck'],
        neck__num_heads=HEADS,
        neck__feedforward_channels=FFN,
        neck__num_fusion_blocks=2,
        neck__position_order='row_major',  # of images that are not square
        bbox_head__in_channels=[setting['neck']] * levels,
        bbox_head__embed_dims=WIDTH,
        bbox_head__num_classes=CLASSES,
        bbox_head__query_selector__num_queries=QUERIES,
        bbox_head__decoder__num_layers=LAYERS,
        bbox_head__decoder__num_heads=HEADS,
        bbox_head__decoder__feedforward_channels=FFN,
        bbox_head__decoder__num_points=setting['points'],
        bbox_head__decoder__reg_scale=setting['reg_scale'],
    ).eval()


def test_every_key_is_accounted_for(theirs: Any, folder: Path, ours: Any) -> None:
    """In memory as in the file, whose names differ; the heads, which memory holds twice, are taken once."""
    in_memory, in_file = theirs.state_dict(), read_checkpoint(folder)
    account = convert_accounted(in_file, 'transformers')
    points = [f'model.decoder.layers.{i}.encoder_attn.num_points_scale' for i in range(LAYERS)]
    assert sorted(account.dropped[POINT_COUNTS]) == points
    # three projections, weight and bias, of each decoder layer and of the encoder's
    assert account.num_joined == (LAYERS + 1) * 6
    left_out = sum(map(len, account.dropped.values())) + account.num_joined * 2 // 3
    assert account.num_read == len(in_file) == len(account.weights) + left_out

    again = convert_accounted(in_memory, 'transformers')
    assert_same_weights(account.weights, again.weights)
    repeated = again.dropped[REPEATED]
    assert len(repeated) == LAYERS * 8 and all(key.startswith(('class_embed.', 'bbox_embed.')) for key in repeated)
    assert set(in_memory) - set(repeated) != set(in_file)

    result = ours.load_state_dict(account.weights, strict=True)
    assert not result.missing_keys and not result.unexpected_keys
    # what their file lacks are counters of the backbone's frozen batch norms
    lacking = set(ours.state_dict()) - set(account.weights)
    assert all(key.startswith('backbone.') and key.endswith('num_batches_tracked') for key in lacking)


@pytest.mark.parametrize(('height', 'width'), [(160, 160), (96, 192)])
def test_the_outputs_are_theirs(theirs: Any, ours: Any, formula: Any, height: int, width: int) -> None:
    ours.load_state_dict(convert(theirs.state_dict(), 'transformers'), strict=True)
    image = torch.as_tensor(formula.image(f'{height}x{width}', (2, 3, height, width)))
    with torch.no_grad():
        outputs, answer = ours(image, mode='tensor'), theirs(pixel_values=image)
    assert answer.logits.std() > 0.1 and answer.pred_boxes.std() > 0.01
    assert difference_as_sets(outputs, (answer.logits, answer.pred_boxes)) < 1e-4


def test_what_is_trained_is_theirs(theirs: Any, ours: Any, formula: Any) -> None:
    """Every layer's scores, boxes and distributions, and the initial prediction, which losses look at."""
    ours.load_state_dict(convert(theirs.state_dict(), 'transformers'), strict=True)
    image = torch.as_tensor(formula.image('training', (2, 3, 128, 160)))
    kept: list[Predictions] = []
    hook = ours.bbox_head.decoder.register_forward_hook(lambda module, inputs, output: kept.append(output))
    theirs.model.decoder.train()
    ours.bbox_head.decoder.train()
    try:
        with torch.no_grad():
            ours(image, mode='tensor')
            answer = theirs.model(image)
    finally:
        hook.remove()
        theirs.eval()
        ours.eval()
    (predictions,), refinement = kept, kept[0].refinement
    assert refinement is not None and len(predictions.logits) == LAYERS
    logits, boxes = answer.intermediate_logits, answer.intermediate_reference_points  # the initial one before all
    first = (refinement.initial_logits[0], refinement.initial_boxes[0])
    assert difference_as_sets(first, (logits[:, 0], boxes[:, 0])) < 1e-4
    for i in range(LAYERS):
        pair = (predictions.logits[i], predictions.boxes[i]), (logits[:, i + 1], boxes[:, i + 1])
        assert difference_as_sets(*pair) < 1e-4
        corners, their_corners = refinement.corners[i].flatten(-2), answer.intermediate_predicted_corners[:, i]
        assert their_corners.std() > 0.1
        assert difference_as_sets((corners, predictions.boxes[i]), (their_corners, boxes[:, i + 1])) < 1e-4


def test_the_way_on_to_the_authors_names(theirs: Any) -> None:
    weights = convert(theirs.state_dict(), 'transformers')
    authors = convert_back(weights, 'dfine')
    # tables that their code saves; up and reg_scale are written a second time
    tables = {'decoder.anchors', 'decoder.valid_mask'}
    for layer in range(theirs.config.decoder_layers):
        tables.add(f'decoder.decoder.layers.{layer}.cross_attn.num_points_scale')
    assert tables <= authors.keys() and len(authors) == len(weights) + 2 + len(tables)
    assert_same_weights(weights, convert(authors, 'dfine'))


def test_names_of_one_family_are_unknown_in_the_other(folder: Path) -> None:
    weights = dict(read_checkpoint(folder))
    without = {key: value for key, value in weights.items() if '.lqe_layers.' not in key}
    with pytest.raises(InputError, match=r"unknown key .*Hugging Face's RT-DETR; is this the right source"):
        convert(without, 'transformers')
    weights['model.backbone.model.encoder.stages.0.layers.0.layer.0.convolution.weight'] = torch.zeros(1)
    with pytest.raises(InputError, match=r"unknown key .*stages\.0\.layers\.0.*Hugging Face's D-FINE"):
        convert(weights, 'transformers')


def test_a_file_of_the_conversion_that_lost_the_keys_is_refused(folder: Path) -> None:
    weights = dict(read_checkpoint(folder))
    start = 'model.decoder.layers.1.self_attn.'
    weights[f'{start}k_proj.bias'] = weights[f'{start}v_proj.bias']  # two biases may be equal: zero, before training
    convert(weights, 'transformers')
    weights[f'{start}k_proj.weight'] = weights[f'{start}v_proj.weight']
    with pytest.raises(InputError, match=r'layers\.1\.self_attn\.in_proj_weight.* hold the same numbers.*40253'):
        convert(weights, 'transformers')
