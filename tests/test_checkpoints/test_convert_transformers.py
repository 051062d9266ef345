from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Callable

import pytest
import torch
from helpers import assert_same_weights
from torch import Tensor

from mmdet_iouquery.checkpoints import convert, convert_back
from mmdet_iouquery.checkpoints.convert import POINT_COUNTS, REPEATED, convert_accounted
from mmdet_iouquery.checkpoints.files import read_checkpoint
from mmdet_iouquery.errors import InputError

pytest.importorskip('transformers')
pytest.importorskip('safetensors')

SETTINGS: dict[str, dict[str, Any]] = {
    'basic': {
        'theirs': {'depths': [2, 2, 2, 2], 'hidden_sizes': [64, 128, 256, 512], 'layer_type': 'basic'},
        'ours': {'depth': 18},
        'expansion': 0.5,
        'num_layers': 3,
    },
    'bottleneck': {
        'theirs': {
            'depths': [3, 4, 6, 3],
            'embedding_size': 16,
            'hidden_sizes': [64, 128, 256, 512],
            'layer_type': 'bottleneck',
        },
        'ours': {'depth': 50, 'backbone': {'base_channels': 16, 'stem_channels': 16}},
        'expansion': 1.0,
        'num_layers': 2,
    },
}
QUERIES, CLASSES = 60, 7


@pytest.fixture(scope='module', params=list(SETTINGS))
def setting(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope='module')
def theirs(setting: str, fill: Callable[..., dict[str, Tensor]]) -> Any:
    """Their model, every weight and running statistic random."""
    from transformers import RTDetrConfig, RTDetrForObjectDetection, RTDetrResNetConfig

    choice = SETTINGS[setting]
    config = RTDetrConfig(
        backbone_config=RTDetrResNetConfig(out_features=['stage2', 'stage3', 'stage4'], **choice['theirs']),
        encoder_in_channels=[128, 256, 512],
        hidden_expansion=choice['expansion'],
        decoder_layers=choice['num_layers'],
        num_labels=CLASSES,
        num_queries=QUERIES,
    )
    model = RTDetrForObjectDetection(config).eval()
    model.load_state_dict(fill({key: value.shape for key, value in model.state_dict().items()}))
    return model


@pytest.fixture(scope='module')
def build_ours(setting: str, build_detector: Callable[..., Any]) -> Callable[..., Any]:
    choice = SETTINGS[setting]
    sizes = {'expansion': choice['expansion'], 'num_layers': choice['num_layers'], 'num_classes': CLASSES}
    return lambda **neck: build_detector(**choice['ours'], **sizes, neck=neck, num_queries=QUERIES)


@pytest.fixture
def error(theirs: Any, difference: Callable[..., float], formula: Any) -> Callable[..., float]:
    """Largest difference of logits and boxes between a model of ours and theirs, at an input size."""

    def measure(ours: Any, height: int, width: int) -> float:
        image = torch.as_tensor(formula.image(f'{height}x{width}', (2, 3, height, width)))
        with torch.no_grad():
            outputs, answer = ours(image, mode='tensor'), theirs(pixel_values=image)
        assert answer.logits.std() > 0.1 and answer.pred_boxes.std() > 0.01
        return difference(outputs, (answer.logits, answer.pred_boxes))

    return measure


def test_names_in_memory_and_in_files_give_the_same_model(
    theirs: Any, folder: Path, build_ours: Callable[..., Any], error: Callable[..., float]
) -> None:
    weights = convert(theirs.state_dict(), 'transformers')
    assert_same_weights(weights, convert(read_checkpoint(folder), 'transformers'))
    assert_same_weights(weights, convert(read_checkpoint(folder / 'model.safetensors'), 'transformers'))

    ours = build_ours()
    result = ours.load_state_dict(weights, strict=True)
    assert not result.missing_keys and not result.unexpected_keys
    # what their file lacks are counters of the backbone's frozen batch norms
    lacking = set(ours.state_dict()) - set(weights)
    assert all(key.startswith('backbone.') and key.endswith('num_batches_tracked') for key in lacking)
    assert error(ours, 64, 64) < 1e-4
    assert error(ours, 160, 160) < 1e-4


def test_inputs_that_are_not_square_need_row_major_positions(
    theirs: Any, build_ours: Callable[..., Any], error: Callable[..., float], formula: Any
) -> None:
    weights = convert(theirs.state_dict(), 'transformers')
    by_rows, by_columns = build_ours(position_order='row_major'), build_ours(position_order='column_major')
    by_rows.load_state_dict(weights, strict=True)
    by_columns.load_state_dict(weights, strict=True)
    assert error(by_rows, 96, 160) < 1e-4
    image = torch.as_tensor(formula.image('wide', (1, 3, 96, 160)))
    with torch.no_grad():
        levels = zip(by_rows.extract_feat(image), by_columns.extract_feat(image))
        assert all((a - b).abs().max() > 1e-3 for a, b in levels)


def test_both_name_styles_are_really_different(theirs: Any, folder: Path) -> None:
    in_memory, in_file = set(theirs.state_dict()), set(read_checkpoint(folder))
    assert in_memory != in_file and len(in_memory) == len(in_file)


def test_the_way_on_to_the_authors_names(theirs: Any) -> None:
    weights = convert(theirs.state_dict(), 'transformers')
    authors = convert_back(weights, 'rtdetr')
    assert len(authors) == len(weights)
    assert_same_weights(weights, convert(authors, 'rtdetr'))


def test_repeated_heads_of_older_files_must_be_equal(folder: Path) -> None:
    weights = dict(read_checkpoint(folder))
    top = {
        key[len('model.decoder.') :]: value
        for key, value in weights.items()
        if key.startswith(('model.decoder.class_embed', 'model.decoder.bbox_embed'))
    }
    account = convert_accounted({**weights, **top}, 'transformers')
    assert sorted(account.dropped[REPEATED]) == sorted(top)
    assert_same_weights(account.weights, convert(weights, 'transformers'))

    # a file that has only the copies
    inside = {key: value for key, value in weights.items() if f'{key[len("model.decoder.") :]}' not in top}
    assert_same_weights(convert({**inside, **top}, 'transformers'), convert(weights, 'transformers'))

    other = {'class_embed.0.bias': top['class_embed.0.bias'] + 1}
    with pytest.raises(InputError, match=r"'class_embed\.0\.bias' and 'model\.decoder\.class_embed\.0\.bias'"):
        convert({**weights, **other}, 'transformers')


def test_projections_are_joined_in_the_order_q_k_v(folder: Path) -> None:
    weights = dict(read_checkpoint(folder))
    account = convert_accounted(weights, 'transformers')
    joined = account.weights['bbox_head.decoder.layers.0.self_attn.in_proj_bias']
    parts = [weights[f'model.decoder.layers.0.self_attn.{letter}_proj.bias'] for letter in 'qkv']
    assert torch.equal(joined, torch.cat(parts))
    # q, k and v, weight and bias, of every attention
    assert account.num_joined == sum('.q_proj.' in key for key in weights) * 3
    assert len(weights) == len(account.weights) + account.num_joined * 2 // 3

    del weights['model.decoder.layers.0.self_attn.k_proj.bias']
    with pytest.raises(InputError, match=r'layers\.0\.self_attn\.in_proj_bias.*k_proj is missing'):
        convert(weights, 'transformers')


def test_label_embedding_has_a_row_for_padding(folder: Path) -> None:
    weights = convert(read_checkpoint(folder), 'transformers')
    assert len(weights['bbox_head.denoising.label_embedding.weight']) == CLASSES + 1


def test_an_unknown_key_is_named() -> None:
    with pytest.raises(InputError, match=r"'model\.mask_head\.weight'.*Hugging Face"):
        convert({'model.mask_head.weight': torch.zeros(1)}, 'transformers')


@pytest.fixture(scope='module', params=['default', 'discrete'])
def version_2(request: pytest.FixtureRequest, fill: Callable[..., dict[str, Tensor]]) -> Any:
    """Their RT-DETRv2, every weight and running statistic random."""
    from transformers import RTDetrResNetConfig, RTDetrV2Config, RTDetrV2ForObjectDetection

    backbone = RTDetrResNetConfig(out_features=['stage2', 'stage3', 'stage4'], **SETTINGS['basic']['theirs'])
    config = RTDetrV2Config(
        backbone_config=backbone,
        encoder_in_channels=[128, 256, 512],
        hidden_expansion=0.5,
        decoder_layers=2,
        decoder_n_points=3,
        decoder_method=request.param,
        num_labels=CLASSES,
        num_queries=QUERIES,
    )
    model = RTDetrV2ForObjectDetection(config).eval()
    weights = {key: value.shape for key, value in model.state_dict().items() if not key.endswith('n_points_scale')}
    model.load_state_dict(fill(weights), strict=False)
    return model


def test_version_2_gives_the_same_outputs(
    version_2: Any, build_detector: Callable[..., Any], difference: Callable[..., float], formula: Any, tmp_path: Path
) -> None:
    """Also where it samples discretely: a square input, in which its bounds of either axis are right."""
    logging.disable(logging.WARNING)
    version_2.save_pretrained(tmp_path)
    logging.disable(logging.NOTSET)
    account = convert_accounted(read_checkpoint(tmp_path), 'transformers')
    points = [f'model.decoder.layers.{i}.encoder_attn.n_points_scale' for i in range(2)]
    assert account.dropped in ({POINT_COUNTS: points}, {})  # a release that writes them, or not
    assert_same_weights(account.weights, convert(version_2.state_dict(), 'transformers'))

    sampling = {'default': 'bilinear', 'discrete': 'discrete'}[version_2.config.decoder_method]
    decoder = {'num_points': 3, 'sampling': sampling}
    ours = build_detector(depth=18, num_layers=2, num_classes=CLASSES, num_queries=QUERIES, decoder=decoder)
    ours.load_state_dict(account.weights, strict=True)
    image = torch.as_tensor(formula.image('160x160', (2, 3, 160, 160))).double()
    with torch.no_grad():
        outputs, answer = ours.double()(image, mode='tensor'), version_2.double()(pixel_values=image)
    assert answer.logits.std() > 0.1 and answer.pred_boxes.std() > 0.01
    assert difference(outputs, (answer.logits, answer.pred_boxes)) < 1e-4
