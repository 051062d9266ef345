"""Whatever an override says: the model is built, or refused with the name of the argument that is wrong."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import shipped_config
from hypothesis import given
from hypothesis import strategies as st
from mmdet.registry import MODELS
from mmengine.config import Config, ConfigDict

from mmdet_iouquery.apps.quickstart.digits import build_digits
from mmdet_iouquery.datasets import check_config
from mmdet_iouquery.errors import InputError

NAN, INF = float('nan'), float('inf')
NO_COUNT: list[Any] = [0, -1, -300, 1.5, NAN, INF, 'three', '4', None, True, [2], {'n': 2}]
NO_POSITIVE: list[Any] = [-0.5, NAN, INF, -INF, 'much', None, True, [0.1]]
NO_SHARE = [*NO_POSITIVE, 1.5]
NO_FLAG: list[Any] = ['yes', 1, 0, None, 'False', []]
NO_LOSS: list[Any] = [5, 'L1Loss', True, [1], 0.5]
NO_CONFIG: list[Any] = [5, 'DeformableDecoder', True, [1], 0.5]

HEAD, NECK = 'model.bbox_head', 'model.neck'
SELECTOR, DENOISING, DECODER = f'{HEAD}.query_selector', f'{HEAD}.denoising', f'{HEAD}.decoder'
CRITERION = f'{HEAD}.criterion'
ASSIGNER, LOSS = f'{CRITERION}.assigner', f'{CRITERION}.loss_cls'
WRONG: dict[str, list[Any]] = {
    **{f'{DECODER}.{name}': NO_COUNT for name in ('num_layers', 'num_heads', 'feedforward_channels')},
    f'{DECODER}.dropout': NO_SHARE,
    f'{DECODER}.num_points': [*NO_COUNT, [], [4, 4], [4, 0, 4], [4, 'a', 4]],
    f'{DECODER}.sampling': ['nearest', 3, None],
    f'{DECODER}.ffn_init': ['zeros', 3, None],
    f'{DECODER}.act_cfg': NO_CONFIG,
    f'{DECODER}.query_pos': [*NO_CONFIG, {'layers': 3}],
    f'{DECODER}.with_cp': NO_FLAG,
    f'{SELECTOR}.num_queries': NO_COUNT,
    f'{SELECTOR}.grid_size': NO_SHARE,
    f'{SELECTOR}.anchor_eps': [*NO_POSITIVE, 0.6],
    f'{SELECTOR}.learned_content': NO_FLAG,
    f'{SELECTOR}.class_agnostic': NO_FLAG,
    f'{SELECTOR}.rank': ['class', 3, None],
    f'{DENOISING}.num_denoising': NO_COUNT,
    f'{DENOISING}.num_groups': [value for value in NO_COUNT if value is not None] + [101],
    f'{DENOISING}.label_noise_ratio': NO_SHARE,
    f'{DENOISING}.box_noise_scale': NO_POSITIVE,
    f'{DENOISING}.contrastive': NO_FLAG,
    f'{DENOISING}.box_noise': ['none', 3, None, 'centre_size'],
    f'{HEAD}.num_classes': NO_COUNT,
    f'{HEAD}.embed_dims': [*NO_COUNT, 255],
    f'{HEAD}.in_channels': [[], [256, 0], [256, 'a'], 256, 'abc', None],
    **{f'{HEAD}.{name}': NO_CONFIG for name in ('query_selector', 'denoising', 'decoder', 'criterion', 'norm_cfg')},
    **{f'{NECK}.{name}': NO_COUNT for name in ('num_heads', 'feedforward_channels', 'num_fusion_blocks')},
    f'{NECK}.out_channels': [*NO_COUNT, 255],
    f'{NECK}.num_encoder_layers': [value for value in NO_COUNT if value != 0 or value is False],
    f'{NECK}.num_outs': [value for value in NO_COUNT if value is not None] + [2],
    f'{NECK}.start_level': [-1, 3, 0.5, 'a', None],
    f'{NECK}.in_channels': [[], [128, 0, 512], 128, None, 'abc'],
    f'{NECK}.encoder_levels': [[3], [-4], ['a'], [0.5], 1, None],
    f'{HEAD}.project': ['some', 3, None],
    f'{NECK}.dropout': NO_SHARE,
    **{f'{NECK}.{name}': ['both', 3, None] for name in ('fusion', 'join', 'downsample')},
    f'{NECK}.lateral_act': NO_FLAG,
    f'{NECK}.expansion': [*NO_POSITIVE, 0.0],
    f'{NECK}.temperature': [*NO_POSITIVE, 0],
    f'{NECK}.position_order': ['spiral', 3, None],
    **{f'{ASSIGNER}.{name}': NO_POSITIVE for name in ('class_weight', 'bbox_weight', 'giou_weight', 'gamma')},
    f'{ASSIGNER}.alpha': NO_SHARE,
    **{f'{LOSS}.{name}': NO_POSITIVE for name in ('alpha', 'gamma', 'loss_weight')},
    f'{LOSS}.reduction': ['average', 3],
    f'{LOSS}.class_weight': [[-1.0] * 10, [NAN] * 10, 'abc', 5],
    f'{CRITERION}.quality': ['siou', 3, None],
    f'{CRITERION}.union_matching': NO_FLAG,
    **{f'{CRITERION}.{name}': NO_LOSS for name in ('loss_cls', 'loss_bbox', 'loss_iou')},
    'model.test_cfg.max_per_img': NO_COUNT,
    'model.test_cfg.score_thr': [1.0, -0.1, NAN, 'low', [0.5], None],
    'model.test_cfg.overlap_thr': [value for value in NO_SHARE if value is not None],
    'model.test_cfg.num_queries': [value for value in NO_COUNT if value is not None],
    'model.test_cfg.num_decoder_layers': [0, 4, -9, 1.5, 'two', [1]],
    'model.test_cfg.keep_selected': NO_FLAG,
    'model.backbone.depth': [19, 0, -18, 'R18', None, 18.5],
    'model.backbone.frozen_stages': [5, -2, 'all', None, 0.5],
    'model.backbone.out_indices': [[4], [-1], [], 'abc', 3, None],
    'model.data_preprocessor.batch_augments': [
        [{'type': 'BatchMultiScale', 'sizes': sizes}] for sizes in ([], [0], [-32], 'abc', 640, [3.5], None)
    ]
    + [[{'type': 'BatchMultiScale', 'sizes': [64], 'mode': 'cubic'}]],
}
"""Values that an argument must not have."""

D_FINE: dict[str, Any] = {
    DECODER: {'type': 'DistributionDecoder', 'num_layers': 2},
    f'{CRITERION}.loss_fgl': {'type': 'FineGrainedLocalizationLoss'},
    f'{CRITERION}.loss_ddf': {'type': 'DistributionDistillationLoss'},
    LOSS: {'type': 'MatchabilityAwareLoss'},
    'model.backbone': {'type': 'HGNetv2', 'arch': 'B0', 'out_indices': [1, 2, 3]},
    f'{NECK}.in_channels': [256, 512, 1024],
}
"""What makes the model a D-FINE."""
WRONG_IN_D_FINE: dict[str, list[Any]] = {
    **{f'{DECODER}.{name}': NO_COUNT for name in ('num_layers', 'num_heads', 'feedforward_channels')},
    f'{DECODER}.num_points': [*NO_COUNT, [], [4, 4], [4, 0, 4], [4, 'a', 4]],
    f'{DECODER}.reg_max': [*NO_COUNT, 2, 31],
    **{f'{DECODER}.{name}': [*NO_POSITIVE, 0] for name in ('reg_scale', 'up')},
    f'{DECODER}.dropout': NO_SHARE,
    f'{DECODER}.sampling': ['nearest', 3, None],
    f'{DECODER}.fusion': ['sum', 3, None],
    f'{DECODER}.act_cfg': NO_CONFIG,
    f'{DECODER}.query_pos': [*NO_CONFIG, {'layers': 3}],
    f'{DECODER}.with_cp': NO_FLAG,
    **{f'{CRITERION}.{name}': NO_LOSS for name in ('loss_fgl', 'loss_ddf')},
    **{f'{CRITERION}.{name}.loss_weight': NO_POSITIVE for name in ('loss_fgl', 'loss_ddf')},
    f'{CRITERION}.loss_ddf.temperature': [*NO_POSITIVE, 0],
    f'{LOSS}.gamma': NO_POSITIVE,
    f'{LOSS}.alpha': [value for value in NO_POSITIVE if value is not None],
    f'{LOSS}.use_sigmoid': [False],
    'model.backbone.arch': ['B9', 'b0', 0, None],
    'model.backbone.learnable_affine': NO_FLAG,
    'model.backbone.frozen_stages': [5, -2, 'all', None, 0.5],
    'model.backbone.out_indices': [[4], [-1], [], [2, 1], 'abc', 3],
}
"""The same of its parts."""

RIGHT: dict[str, list[Any]] = {
    f'{DECODER}.num_layers': [1, 2],
    f'{DECODER}.dropout': [0, 0.5, 1],
    f'{SELECTOR}.num_queries': [1, 17],
    f'{SELECTOR}.anchor_eps': [0.0, 0.01],
    f'{DENOISING}.num_denoising': [3, 100],
    f'{DENOISING}.num_groups': [None, 1, 3],
    f'{DENOISING}.label_noise_ratio': [0, 1.0],
    f'{NECK}.num_encoder_layers': [0, 2],
    f'{NECK}.num_outs': [None, 3],
    f'{NECK}.expansion': [0.5, 1],
    f'{NECK}.encoder_levels': [[0], [-1, -2], []],
    'model.test_cfg.num_decoder_layers': [None, 1, -1],
    'model.test_cfg.score_thr': [0, 0.5, [0.1] * 10],
    'model.data_preprocessor.batch_augments': [None, [{'type': 'BatchMultiScale', 'sizes': (64, 96)}]],
}
"""Values at the edge of what it can have."""

PARTS = [HEAD, NECK, SELECTOR, DENOISING, DECODER, LOSS, ASSIGNER, 'model.backbone', 'model.test_cfg']


@pytest.fixture(scope='module')
def base(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """The quickstart's config on images that are there, its model of few modules."""
    root = build_digits(
        tmp_path_factory.mktemp('data') / 'digits', num_train=4, num_val=2, image_size=96, progress=False
    )
    cfg = shipped_config('_base_/rtdetr_r18vd_digits.py')
    options: dict[str, Any] = {
        f'{split}_dataloader.dataset.data_root': f'{root}/' for split in ('train', 'val', 'test')
    }
    options.update({f'{DECODER}.num_layers': 2, f'{NECK}.num_fusion_blocks': 1})
    for evaluator in ('val_evaluator', 'test_evaluator'):
        options[f'{evaluator}.ann_file'] = str(Path(root) / 'annotations' / 'val.json')
    cfg.merge_from_dict(options)
    return cfg


def overridden(base: Config, options: Mapping[str, Any]) -> Config:
    """As ``--cfg-options`` does it, where a whole entry can also be replaced."""
    cfg = copy.deepcopy(base)
    for key, value in options.items():
        node = cfg
        *parents, name = key.split('.')
        for parent in parents:
            node = node[parent]
        node[name] = ConfigDict(value) if isinstance(value, dict) else value
    return cfg


def built(cfg: Config) -> Any:
    check_config(cfg)
    return built_part(cfg.model)


def built_part(cfg: ConfigDict) -> Any:
    with torch.device('meta'):  # no memory, no initialisation: it is quick
        return MODELS.build(cfg)


@pytest.mark.parametrize(
    ('model', 'key'),
    [*(('RT-DETR', key) for key in sorted(WRONG)), *(('D-FINE', key) for key in sorted(WRONG_IN_D_FINE))],
)
def test_a_value_out_of_range_is_refused_by_name(model: str, key: str, base: Config) -> None:
    """Every one of them; never accepted in silence, never a deep crash. Of the model only the part itself is built."""
    name = key.rpartition('.')[2].replace('batch_augments', '(sizes|mode)')
    part = key.split('.')[1].replace('test_cfg', 'bbox_head')
    parts, wrong = ({}, WRONG) if model == 'RT-DETR' else (D_FINE, WRONG_IN_D_FINE)
    for value in wrong[key]:
        cfg = overridden(base, {**parts, key: value})
        if part == 'bbox_head':
            cfg.model.bbox_head.test_cfg = cfg.model.test_cfg
        with pytest.raises((InputError, ValueError, TypeError, KeyError), match=rf'\b{name}\b'):
            check_config(cfg)
            built_part(cfg.model[part])
            pytest.fail(f'{key}={value!r} was taken')


@given(options=st.dictionaries(st.sampled_from(sorted(RIGHT)), st.integers(0, 9), min_size=1, max_size=4))
def test_values_in_range_are_taken_in_any_mixture(base: Config, options: dict[str, int]) -> None:
    built(overridden(base, {key: RIGHT[key][which % len(RIGHT[key])] for key, which in options.items()}))


@given(part=st.sampled_from(PARTS), name=st.from_regex(r'[a-z]{3,9}_[a-z]{3,9}', fullmatch=True), value=st.integers())
def test_an_unknown_argument_is_named(base: Config, part: str, name: str, value: int) -> None:
    with pytest.raises((InputError, ValueError, TypeError), match=name):
        built(overridden(base, {f'{part}.{name}': value}))


@given(part=st.sampled_from(PARTS[:7]), kind=st.from_regex(r'[A-Z][A-Za-z]{2,9}', fullmatch=True))
def test_an_unknown_part_is_named(base: Config, part: str, kind: str) -> None:
    if MODELS.get(kind) is None:
        with pytest.raises(KeyError, match='registry'):
            built(overridden(base, {f'{part}.type': kind}))


numbers = st.one_of(st.integers(-3, 12), st.floats(width=16), st.booleans(), st.none(), st.text(max_size=3))


@given(key=st.sampled_from(sorted(WRONG)), value=st.one_of(numbers, st.lists(numbers, max_size=3)))
def test_any_value_is_built_or_refused_by_name(base: Config, key: str, value: Any) -> None:
    try:
        built(overridden(base, {key: value}))
    except (ValueError, TypeError, KeyError) as error:
        name = key.rpartition('.')[2]
        assert name in str(error) or name == 'batch_augments', f'{type(error).__name__}: {error}'
