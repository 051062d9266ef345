"""D-FINE, DEIM, DEIM on RT-DETRv2 and DEIMv2 of their authors: there and back, and what does not fit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import assert_same_weights, build_detector, golden_weights
from torch import Tensor, nn

from mmdet_iouquery.checkpoints import convert, convert_back, sources_of
from mmdet_iouquery.checkpoints.class_names import parse_class_names
from mmdet_iouquery.checkpoints.convert import FIXED_SIZE, POINT_COUNTS, REPEATED, TRAINING_ALONE, convert_accounted
from mmdet_iouquery.checkpoints.convert_file import convert_file
from mmdet_iouquery.checkpoints.initializer import ConvertedPretrained
from mmdet_iouquery.engine.preflight.checkpoint_check import check_checkpoint
from mmdet_iouquery.errors import InputError

DFINE_N = 'dfine/dfine_hgnetv2-n_8xb16-160e_coco.py'
SILU = {'type': 'SiLU'}
NAMES = {
    'dfine_n_320x320': ('dfine', DFINE_N, {}),
    'deim_n_320x320': ('deim', 'deim/deim-dfine_hgnetv2-n_8xb16-160e_coco.py', {}),
    'rtv4_s_256x256': ('rtdetrv4', 'rtdetrv4/rtdetrv4_hgnetv2-s_8xb4-132e_coco.py', {}),
    'deimrt_r18_320x256': (
        'deim',
        'rtdetrv2/rtdetrv2_r18vd_8xb2-120e_coco.py',
        {'bbox_head__decoder__query_pos': {'hidden_dims': 256, 'num_layers': 3, 'act_cfg': SILU}},
    ),
    'deimv2_atto_320x320': ('deimv2', 'deimv2/deimv2_hgnetv2-atto_8xb16-500e_coco.py', {}),
}
"""Golden name to its source, a config of the same sizes, and what is otherwise there."""
POINTS = [f'decoder.decoder.layers.{i}.cross_attn.num_points_scale' for i in range(3)]
TWICE = ['decoder.decoder.up', 'decoder.decoder.reg_scale']
SHARED = 'decoder.dec_bbox_head.'
TABLES = {'decoder.anchors': torch.zeros(1, 2, 4), 'decoder.valid_mask': torch.zeros(1, 2, 1)}
"""Which the authors' files hold too, and the goldens' lists leave out."""

Case = tuple[str, dict[str, Tensor], nn.Module]


@pytest.fixture(scope='module', params=list(NAMES))
def case(request: pytest.FixtureRequest) -> Case:
    """A source, the authors' weights and our detector."""
    source, config, overrides = NAMES[request.param]
    return source, golden_weights(request.param), build_detector(config, **overrides)


@pytest.fixture(scope='module')
def dfine_n() -> tuple[dict[str, Tensor], nn.Module]:
    return golden_weights('dfine_n_320x320'), build_detector(DFINE_N)


def test_every_key_is_accounted_for(case: Case) -> None:
    source, theirs, model = case
    account = convert_accounted({**theirs, **TABLES}, source)
    expected = {FIXED_SIZE: list(TABLES), POINT_COUNTS: POINTS}
    if 'decoder.up' in theirs:
        expected[REPEATED] = list(TWICE)
    if source == 'deimv2':  # one box head for three layers
        expected[REPEATED] += [key for key in theirs if key.startswith((f'{SHARED}1.', f'{SHARED}2.'))]
        assert len(expected[REPEATED]) == 2 + 2 * 6
    assert account.dropped == expected and account.num_joined == 0
    assert account.num_read == len(theirs) + 2 == len(account.weights) + sum(map(len, expected.values()))
    result = model.load_state_dict(account.weights, strict=True)
    assert not result.missing_keys and not result.unexpected_keys
    assert_same_weights(model.state_dict(), account.weights)


def test_their_weights_come_back(case: Case) -> None:
    """And what a strict load needs beside them; ``up`` and ``reg_scale`` stand in both places again."""
    source, theirs, _ = case
    back = convert_back(convert(theirs, source), source)
    assert back.keys() == {*theirs, *TABLES}
    assert all(torch.equal(back[key], value) for key, value in theirs.items() if key not in POINTS)
    assert (TWICE[0] in back) == ('decoder.up' in theirs)


def test_our_weights_come_back(case: Case) -> None:
    source, _, model = case
    ours = model.state_dict()
    assert_same_weights(convert(convert_back(ours, source), source), ours)


THIRDS, QUARTERS, SIXTHS, HALVES = (1 / torch.tensor([float(n)]) for n in (3, 4, 6, 2))
BUFFERS = {
    # one over the number of points of a point's level; numbers of tokens
    'dfine_n_320x320': (SIXTHS.repeat(12), 40 * 40 + 20 * 20),
    'deim_n_320x320': (SIXTHS.repeat(12), 40 * 40 + 20 * 20),
    'rtv4_s_256x256': (torch.cat([THIRDS.repeat(3), SIXTHS.repeat(6), THIRDS.repeat(3)]), 80**2 + 40**2 + 20**2),
    'deimrt_r18_320x256': (QUARTERS.repeat(12), 80**2 + 40**2 + 20**2),
    'deimv2_atto_320x320': (torch.cat([QUARTERS.repeat(4), HALVES.repeat(2)]), 20 * 20 + 10 * 10),
}


@pytest.mark.parametrize('name', NAMES)
def test_buffers_of_their_decoders_are_written(name: str) -> None:
    """Points and input sizes of their configs for COCO, which their tools load strictly; Atto's are 320 x 320 px."""
    source, scale, num_tokens = NAMES[name][0], *BUFFERS[name]
    back = convert_back(convert(golden_weights(name), source), source)
    assert all(torch.equal(back[key], scale) for key in POINTS)
    anchors, valid = back['decoder.anchors'], back['decoder.valid_mask']
    assert (anchors.shape, anchors.dtype) == ((1, num_tokens, 4), torch.float32)
    assert (valid.shape, valid.dtype) == ((1, num_tokens, 1), torch.bool)
    assert torch.equal(valid.expand_as(anchors), anchors.isfinite()) and (anchors[~valid[..., 0]] == torch.inf).all()
    stride, side = {2000: (16, 640), 8400: (8, 640), 500: (16, 320)}[num_tokens]
    second_row = side // stride + 3  # its fourth token
    boxes = [3.5 * stride / side, 1.5 * stride / side, 0.05, 0.05]
    torch.testing.assert_close(anchors[0, second_row].sigmoid(), torch.tensor(boxes))
    last = torch.tensor([1 - 16 / side] * 2 + [0.05 * 2 ** (1 if stride == 16 else 2)] * 2)
    torch.testing.assert_close(anchors[0, -1].sigmoid(), last)


CLASSES = {'classes': ('cat', 'dog'), 'palette': [(1, 2, 3), (4, 5, 6)]}


def test_points_and_size_that_a_run_has_noted_are_written(tmp_path: Path) -> None:
    """Of its config, which is read without being run; of what a conversion has noted, the size."""
    weights = convert(golden_weights('dfine_n_320x320'), 'dfine')
    head = 'model = dict(bbox_head=dict(decoder=dict(num_points=[8, 4])))\n'
    resize = "dict(dataset=dict(pipeline=[dict(type='Resize', scale=(256, 128), keep_ratio=False)]))"
    rates = "optim_wrapper = dict(paramwise_cfg=dict(groups=dict({'backbone.vit': 0.05, 'neck': 1})))\n"
    noted = {'preprocessing': {'scale': [320, 64], 'keep_ratio': False}}
    eighths = torch.tensor([1 / 8] * 8 + [1 / 4] * 4)
    for meta, scale, size in (
        ({'cfg': f'{head}{rates}test_dataloader = {resize}\n', 'dataset_meta': CLASSES}, eighths, (128, 256)),
        ({'cfg': head.replace('[8, 4]', '6'), **noted}, SIXTHS.repeat(12), (64, 320)),
        ({'cfg': 'import os\n', **noted}, SIXTHS.repeat(12), (64, 320)),
        ({'cfg': 'model = None\n'}, SIXTHS.repeat(12), (640, 640)),
    ):
        torch.save({'state_dict': weights, 'meta': meta}, tmp_path / 'ours.pth')
        summary = convert_file(tmp_path / 'ours.pth', tmp_path / 'theirs.pth', 'mmdet', target='dfine', force=True)
        theirs = torch.load(tmp_path / 'theirs.pth', weights_only=True)
        back = theirs['model']
        assert torch.equal(back[POINTS[2]], scale)
        tokens = size[0] // 16 * (size[1] // 16) + size[0] // 32 * (size[1] // 32)
        assert back['decoder.valid_mask'].shape == (1, tokens, 1)
        assert ('is not run: input size' in str(summary)) == ('import' in meta['cfg'])
        # read back, they are noted still, and so are the classes
        convert_file(tmp_path / 'theirs.pth', tmp_path / 'back.pth', 'dfine', force=True)
        noted_back = torch.load(tmp_path / 'back.pth', weights_only=True)['meta']
        assert noted_back['preprocessing']['scale'] == [*size[::-1]]
        assert noted_back.get('dataset_meta') == meta.get('dataset_meta')


def test_names_of_dfine_and_deim_are_the_same(dfine_n: tuple[dict[str, Tensor], nn.Module]) -> None:
    theirs, model = dfine_n
    assert_same_weights(convert(theirs, 'dfine'), convert(theirs, 'deim'))
    assert_same_weights(convert_back(model.state_dict(), 'dfine'), convert_back(model.state_dict(), 'deim'))


@pytest.mark.parametrize(
    ('wrap', 'wrapper', 'left'),
    [
        (
            lambda w: {'ema': {'module': w, 'updates': 7}, 'model': {'w': torch.zeros(1)}, 'last_epoch': 3},
            'ema.module',
            ['model', 'last_epoch', 'ema.updates'],
        ),
        (lambda w: {'model': w}, 'model', []),
        (lambda w: {'model': {f'module.{key}': value for key, value in w.items()}}, 'model', []),
    ],
)
def test_their_files_are_unwrapped(
    wrap: Callable[[dict], dict], wrapper: str, left: list[str], dfine_n: tuple[dict[str, Tensor], nn.Module]
) -> None:
    theirs, _ = dfine_n
    account = convert_accounted(wrap(theirs), 'dfine')
    assert (account.wrapper, account.left) == (wrapper, left)
    assert_same_weights(account.weights, convert(theirs, 'dfine'))


@pytest.mark.parametrize('name', TWICE)
def test_a_file_whose_constants_contradict_each_other_is_damaged(
    name: str, dfine_n: tuple[dict[str, Tensor], nn.Module]
) -> None:
    theirs = {**dfine_n[0], name: torch.tensor([2.0])}
    first = name.replace('decoder.', '', 1)
    with pytest.raises(
        InputError, match=rf'{name} is \[2\.0\] and {first} is .*must be equal: the file is damaged; get it again$'
    ):
        convert(theirs, 'dfine')


def test_box_heads_of_all_layers_are_one_or_each_its_own() -> None:
    """DEIMv2-N's have their own; of Atto's, which are one, a copy that differs is damage."""
    whole = build_detector('deimv2/deimv2_hgnetv2-n_8xb4-160e_coco.py')
    for parameter in whole.parameters():
        nn.init.normal_(parameter)
    ours = whole.state_dict()
    theirs = convert_back(ours, 'deimv2')
    for key in ('layers.2.swish_ffn.w12.bias', 'layers.0.gateway.norm.scale', 'layers.1.norm3.scale'):
        assert f'decoder.decoder.{key}' in theirs
    assert_same_weights(convert(theirs, 'deimv2'), ours)
    shared = golden_weights('deimv2_atto_320x320')
    shared[f'{SHARED}2.layers.1.bias'] = shared[f'{SHARED}2.layers.1.bias'] + 1
    with pytest.raises(
        InputError,
        match=r'^decoder\.dec_bbox_head: of 3 heads 0 and 1 are equal, and others are not, .* damaged; get it again$',
    ):
        convert(shared, 'deimv2')


OTHER_FAMILIES = [
    # weights, the source they are taken for, the first key that it does not have, whose they are
    ('rtdetr_r18_320x320', 'dfine', r'backbone\.conv1\.conv1_1', 'rtdetr'),
    ('v2_r18_320x256', 'dfine', r'backbone\.conv1\.conv1_1', 'rtdetrv2 or deim'),
    ('rtdetr_r18_320x320', 'deim', r'(encoder\.input_proj|decoder\.enc_output)\.0', 'rtdetr'),
    ('dfine_n_320x320', 'rtdetr', r'backbone\.stem\.stem1', 'dfine or deim'),
    ('dfine_n_320x320', 'rtdetrv2', r'backbone\.stem\.stem1', 'dfine or deim'),
    ('deim_n_320x320', 'transformers', r'backbone\.stem\.stem1', 'dfine or deim'),
    ('deimv2_atto_320x320', 'deim', r'encoder\.down_sample1', 'deimv2'),
    ('deimv2_atto_320x320', 'dfine', r'encoder\.down_sample1', 'deimv2'),
    ('dfine_n_320x320', 'deimv2', r'decoder\.decoder\.layers\.0\.norm1', 'dfine or deim'),
    ('deimrt_r18_320x256', 'dfine', r'backbone\.conv1\.conv1_1', 'rtdetrv2 or deim'),
    ('rtv4_s_256x256', 'deim', r'encoder\.feature_projector\.0', 'rtdetrv4'),
]


@pytest.mark.parametrize(('name', 'source', 'key', 'fitting'), OTHER_FAMILIES)
def test_another_family_is_refused_and_named(name: str, source: str, key: str, fitting: str) -> None:
    with pytest.raises(
        InputError, match=rf"^unknown key '{key}.*are those of the source {fitting}; name that with --source$"
    ):
        convert(golden_weights(name), source)


def test_rtdetrv4_without_its_projector_is_deims(tmp_path: Path) -> None:
    """As a plain config reads it: and what only the distillation reads is left out of DEIM's file, and told."""
    theirs = golden_weights('rtv4_s_256x256')
    ours = saved(tmp_path / 'ours.pth', convert(theirs, 'rtdetrv4'), 'state_dict')
    check_checkpoint(build_detector('deim/deim-dfine_hgnetv2-s_8xb4-132e_coco.py'), ours)
    summary = convert_file(ours, tmp_path / 'deim.pth', 'mmdet', target='deim')
    assert summary is not None
    without = [f'data_preprocessor.projector.{part}' for part in ('weight', 'bias')]
    assert summary.conversion.dropped == {TRAINING_ALONE: without}
    back = torch.load(tmp_path / 'deim.pth', weights_only=True)['model']
    assert set(theirs) - set(back) == {f'encoder.feature_projector.0.{part}' for part in ('weight', 'bias')}
    assert sources_of(back) == ['dfine', 'deim'] and sources_of(theirs) == ['rtdetrv4']


def test_a_file_that_was_converted_before_is_named(dfine_n: tuple[dict[str, Tensor], nn.Module]) -> None:
    with pytest.raises(InputError, match=r'are those of the source mmdet; name that with --source$'):
        convert(dfine_n[1].state_dict(), 'dfine')


def saved(path: Path, weights: dict[str, Tensor], root: str) -> Path:
    torch.save({root: weights}, path)
    return path


@pytest.fixture(scope='module')
def files(tmp_path_factory: pytest.TempPathFactory, dfine_n: tuple[dict[str, Tensor], nn.Module]) -> dict[str, Path]:
    """Files by what they hold, under the authors' names: D-FINE-N, the same with other bins, D-FINE-S."""
    folder, theirs = tmp_path_factory.mktemp('theirs'), dfine_n[0]
    finer = {**theirs, **{key: torch.tensor([8.0]) for key in theirs if key.endswith('reg_scale')}}
    small = convert_back(build_detector('dfine/dfine_hgnetv2-s_8xb4-132e_coco.py').state_dict(), 'dfine')
    contents = {'n': theirs, 'finer': finer, 's': small}
    return {name: saved(folder / f'{name}.pth', weights, 'model') for name, weights in contents.items()}


@pytest.fixture(scope='module')
def converted(files: dict[str, Path]) -> dict[str, Path]:
    """The same files, converted."""
    for name in ('n', 'finer', 's'):
        convert_file(files[name], files[name].with_name(f'{name}-ours.pth'), 'dfine')
    return {name: path.with_name(f'{name}-ours.pth') for name, path in files.items()}


def test_a_converted_file_loads(converted: dict[str, Path], dfine_n: tuple[dict[str, Tensor], nn.Module]) -> None:
    check_checkpoint(dfine_n[1], converted['n'])
    content = torch.load(converted['n'], weights_only=True)
    assert content['meta']['preprocessing']['scale'] == [640, 640]
    assert_same_weights(content['state_dict'], convert(dfine_n[0], 'dfine'))


BINS = (
    r'does not fit the config: the weights were trained with reg_scale=8 and this decoder has reg_scale=4, which would '
    r'move every edge; set reg_scale=8 in the decoder of the config \(model\.bbox_head\.decoder\.reg_scale=8 in'
)
"""What is said of weights with other bins. Used before a run (``load_from``, ``tools/test.py``) and at ``init_cfg``."""


def test_other_bins_are_refused_before_a_run(
    converted: dict[str, Path], dfine_n: tuple[dict[str, Tensor], nn.Module]
) -> None:
    with pytest.raises(InputError, match=r'finer-ours\.pth ' + BINS):
        check_checkpoint(dfine_n[1], converted['finer'])


def test_another_size_is_refused_before_a_run(
    converted: dict[str, Path], files: dict[str, Path], dfine_n: tuple[dict[str, Tensor], nn.Module]
) -> None:
    of_another_size = (
        r's-ours\.pth does not fit the model: weights \d+ of another shape .*unknown to the model.*config it'
    )
    with pytest.raises(InputError, match=of_another_size):
        check_checkpoint(dfine_n[1], converted['s'])
    not_converted = r'n\.pth does not fit the model: .*such as backbone\.stem\.conv1.*`iouquery convert`'
    with pytest.raises(InputError, match=not_converted):
        check_checkpoint(dfine_n[1], files['n'])


@pytest.mark.parametrize(
    ('file', 'message'),
    [
        ('finer', r'finer\.pth ' + BINS),
        ('s', r"s\.pth \(source 'dfine'\) does not fit SingleStageDetector: missing in the file: .*of another shape: "),
    ],
)
def test_init_cfg_refuses_what_does_not_fit(
    file: str, message: str, files: dict[str, Path], dfine_n: tuple[dict[str, Tensor], nn.Module]
) -> None:
    before = {key: value.clone() for key, value in dfine_n[1].state_dict().items()}
    with pytest.raises(InputError, match=message):
        ConvertedPretrained(str(files[file]), 'dfine')(dfine_n[1])
    assert_same_weights(dfine_n[1].state_dict(), before)


def test_init_cfg_takes_the_authors_file(files: dict[str, Path], dfine_n: tuple[dict[str, Tensor], nn.Module]) -> None:
    model: Any = build_detector(DFINE_N)
    model.init_cfg = {'type': 'ConvertedPretrained', 'source': 'dfine', 'checkpoint': str(files['n'])}
    model.init_weights()
    assert_same_weights(model.state_dict(), convert(dfine_n[0], 'dfine'))


def test_classes_of_coco_from_weights_of_objects365(tmp_path: Path) -> None:
    """The authors' files have a row for each id from 0; the initial prediction has no head of its own."""
    whole = build_detector(DFINE_N, bbox_head__num_classes=366).state_dict()
    source, target = saved(tmp_path / 'obj365.pth', convert_back(whole, 'dfine'), 'model'), tmp_path / 'coco.pth'
    classes = {name: parse_class_names(name) for name in ('objects365-by-id', 'coco')}
    summary = convert_file(
        source, target, 'dfine', source_classes=classes['objects365-by-id'], target_classes=classes['coco']
    )
    assert summary is not None and summary.kept == classes['coco'] and not summary.fresh
    weights = torch.load(target, weights_only=True)['state_dict']
    build_detector(DFINE_N).load_state_dict(weights, strict=True)

    rows = torch.tensor(
        [classes['objects365-by-id'].index(name) for name in ('Person', 'Bicycle', 'bird', 'hair drier')]
    )
    assert rows.tolist() == [1, 47, 57, 329]
    changed = {key for key in whole if not torch.equal(weights[key], whole[key])}
    heads = [f'decoder.cls_heads.{i}' for i in range(3)] + ['query_selector.cls_head']
    expected = {f'bbox_head.{head}.{kind}' for head in heads for kind in ('weight', 'bias')}
    embedding = 'bbox_head.denoising.label_embedding.weight'
    assert changed == {*expected, embedding}
    for key in changed:
        assert torch.equal(weights[key][[0, 1, 14, 78]], whole[key][rows])
        assert len(weights[key]) == 80 + (key == embedding)
    assert not weights[embedding][-1].any()
