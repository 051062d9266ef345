"""Our detectors as folders that Hugging Face's ``from_pretrained`` opens: the same numbers, every key accounted for."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest
import torch
from helpers import NARROW, NARROW_N, difference_as_sets, shipped_config
from mmdet.registry import MODELS
from mmengine.config import Config
from PIL import Image
from torch import Tensor

from mmdet_iouquery.checkpoints import convert, convert_back
from mmdet_iouquery.checkpoints.convert_file import convert_file
from mmdet_iouquery.checkpoints.files import read_checkpoint
from mmdet_iouquery.checkpoints.notes import checkpoint_notes
from mmdet_iouquery.checkpoints.preprocessing import RTDETR
from mmdet_iouquery.checkpoints.transformers_config import transformers_config
from mmdet_iouquery.checkpoints.transformers_folder import FROZEN_COUNTERS, UNUSED_LAYERS, to_transformers
from mmdet_iouquery.errors import InputError

CLASSES = ('cat', 'dog', 'traffic light', 'Äpfel', 'e')
SIZE = 160
R18 = 'rtdetr/rtdetr_r18vd_8xb2-72e_coco.py'
R50_M = 'rtdetr/rtdetr_r50vd_m_8xb2-72e_coco.py'
V2 = 'rtdetrv2/rtdetrv2_r18vd_8xb2-120e_coco.py'
DISCRETE = 'rtdetrv2/rtdetrv2_r18vd_dsp_8xb2-36e_coco.py'
N, S = 'dfine/dfine_hgnetv2-n_8xb16-160e_coco.py', 'dfine/dfine_hgnetv2-s_8xb4-132e_coco.py'
NARROW_S: dict[str, Any] = {**NARROW_N, 'bbox_head__in_channels': [48] * 3, 'neck__out_channels': 48}
MODELS_OF: dict[str, tuple[str, str, dict[str, Any]]] = {
    'R18': ('RTDetrForObjectDetection', R18, NARROW),
    'R50-m': ('RTDetrForObjectDetection', R50_M, {**NARROW, 'neck__in_channels': [64, 128, 256]}),
    'v2 R18': ('RTDetrV2ForObjectDetection', V2, {**NARROW, 'bbox_head__decoder__num_points': [3, 3, 3]}),
    'v2 R18 discrete': ('RTDetrV2ForObjectDetection', DISCRETE, {**NARROW, 'bbox_head__denoising': None}),
    'D-FINE-N': ('DFineForObjectDetection', N, NARROW_N),
    'D-FINE-S': ('DFineForObjectDetection', S, {**NARROW_S, 'bbox_head__decoder__reg_scale': 8.0}),
}
"""Class of transformers, config and overrides; the last decoder projects the neck's maps."""


def config_of(name: str, **overrides: Any) -> Config:
    """A shipped config for five classes and squares of :data:`SIZE`; overrides as in :mod:`helpers`."""
    cfg = shipped_config(name)
    settings = {'bbox_head__num_classes': len(CLASSES), 'bbox_head__query_selector__num_queries': 30, **overrides}
    cfg.merge_from_dict({f'model.{key.replace("__", ".")}': value for key, value in settings.items()})
    dataset = cfg.test_dataloader.dataset
    dataset.metainfo = {'classes': CLASSES}
    dataset.pipeline[1].scale = (SIZE, SIZE)
    return cfg


@contextmanager
def quietly() -> Iterator[None]:
    """Transformers logs a line a file."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(scope='module', params=list(MODELS_OF))
def case(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope='module')
def cfg(case: str) -> Config:
    _, name, overrides = MODELS_OF[case]
    return config_of(name, **overrides)


@pytest.fixture(scope='module')
def ours(cfg: Config, fill: Callable[..., dict[str, Tensor]]) -> Any:
    """The detector, every weight and running statistic random."""
    with quietly():
        model = MODELS.build(cfg.model).eval()
    constants = ('decoder.up', 'decoder.reg_scale')
    weights = fill({key: value.shape for key, value in model.state_dict().items() if not key.endswith(constants)})
    for key in weights:
        weights[key] += key.endswith('affine.scale')  # near 1: a product of many near 0 leaves nothing of the image
    model.load_state_dict(weights, strict=False)
    return model


@pytest.fixture(scope='module')
def checkpoint(ours: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp('ours') / 'epoch_72.pth'
    torch.save({'state_dict': ours.state_dict(), 'meta': {'epoch': 72}}, path)
    return path


@pytest.fixture(scope='module')
def folder(checkpoint: Path, cfg: Config) -> Path:
    path = checkpoint.parent / 'hub'
    before = cfg.pretty_text
    summary = convert_file(checkpoint, path, 'mmdet', target='transformers', config=cfg)
    assert cfg.pretty_text == before
    assert summary is not None and summary.num_written == len(read_checkpoint(path)['state_dict'])
    return path


@pytest.fixture(scope='module')
def theirs(case: str, folder: Path) -> Any:
    transformers = pytest.importorskip('transformers')
    with quietly():
        model, account = getattr(transformers, MODELS_OF[case][0]).from_pretrained(folder, output_loading_info=True)
    assert not any(account.values()), account
    return model.eval()


def test_outputs_are_equal(ours: Any, theirs: Any, formula: Any) -> None:
    image = torch.as_tensor(formula.image('160x160', (2, 3, SIZE, SIZE)))
    with torch.no_grad():
        outputs, answer = ours(image, mode='tensor'), theirs(pixel_values=image)
    assert answer.logits.shape == (2, 30, len(CLASSES))
    assert answer.logits.std() > 0.1 and answer.pred_boxes.std() > 0.01
    assert difference_as_sets(outputs, (answer.logits, answer.pred_boxes)) < 1e-4


def test_keys_are_those_that_transformers_writes(theirs: Any, folder: Path, tmp_path: Path) -> None:
    """And their values, so that a folder written once is the same after being opened and saved there."""
    with quietly():
        theirs.save_pretrained(tmp_path)
    written, expected = read_checkpoint(tmp_path), read_checkpoint(folder)['state_dict']
    assert written.keys() == expected.keys()
    assert all(torch.equal(written[key], expected[key]) for key in expected)


def test_files_without_batch_counters_are_completed(ours: Any, cfg: Config, folder: Path) -> None:
    """As the authors', whose norms are frozen, in a config whose norms are not."""
    lacking = {key: value for key, value in ours.state_dict().items() if not key.endswith('num_batches_tracked')}
    model = to_transformers(lacking, cfg, CLASSES, 'a.pth')
    written = read_checkpoint(folder)['state_dict']
    assert model.weights.keys() == written.keys()
    assert all(torch.equal(value, written[key]) for key, value in model.weights.items())
    assert FROZEN_COUNTERS not in model.dropped


def test_classes_are_named(theirs: Any) -> None:
    assert theirs.config.id2label == dict(enumerate(CLASSES))
    assert theirs.config.label2id == {name: i for i, name in enumerate(CLASSES)}


def test_every_key_comes_back(case: str, ours: Any, folder: Path, checkpoint: Path, cfg: Config) -> None:
    back, own = convert(read_checkpoint(folder), 'transformers'), ours.state_dict()
    left = convert_file(checkpoint, folder, 'mmdet', target='transformers', config=cfg, force=True).conversion.dropped
    assert set(left) == ({UNUSED_LAYERS, FROZEN_COUNTERS} if case == 'R50-m' else set())
    assert back.keys() == own.keys() - {key for keys in left.values() for key in keys}
    assert all(torch.equal(back[key], own[key]) for key in back)
    if case == 'R50-m':
        assert len(left[UNUSED_LAYERS]) == sum(f'.{i}.' in key and '.decoder.' in key for key in own for i in (3, 4, 5))


@pytest.fixture(scope='module')
def tiny() -> Config:
    return config_of(R18, **NARROW)


@pytest.mark.parametrize('mean', [None, (123.675, 116.28, 103.53)])
def test_images_are_prepared_alike(tiny: Config, tmp_path: Path, mean: tuple | None) -> None:
    """By the test pipeline and the data preprocessor, and by their processor: one step of 255 apart at most."""
    transformers = pytest.importorskip('transformers')
    from mmcv.transforms import Compose
    from mmdet.registry import TRANSFORMS

    cfg = Config(tiny.to_dict())
    if mean is not None:
        cfg.model.data_preprocessor.update(mean=[*mean], std=[58.395, 57.12, 57.375])
    content = transformers_config(cfg, CLASSES).preprocessor
    (tmp_path / 'preprocessor_config.json').write_text(json.dumps(content))
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path, backend='pil')
    pixels = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / 'a.png')
    [their_input] = processor(Image.open(tmp_path / 'a.png'), return_tensors='pt')['pixel_values']

    with quietly():
        steps = [step for step in cfg.test_dataloader.dataset.pipeline if step.type != 'LoadAnnotations']
        packed = Compose([TRANSFORMS.build(step) for step in steps])({'img_path': str(tmp_path / 'a.png'), 'img_id': 0})
        preprocessor = MODELS.build(cfg.model.data_preprocessor)
    data = {'inputs': [packed['inputs']], 'data_samples': [packed['data_samples']]}
    [our_input] = preprocessor(data)['inputs']
    scale = min(cfg.model.data_preprocessor.std)
    assert our_input.shape == their_input.shape == (3, SIZE, SIZE)
    assert (our_input - their_input).abs().max() < 1.01 / scale
    assert our_input.std() * scale > 20


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    'DAB decoder': (R18, {'bbox_head__decoder': {'type': 'DABDecoder', '_delete_': True}}, 'decoder is DABDecoder'),
    'learned anchors': (R18, {'bbox_head__query_selector__type': 'LearnedAnchors'}, 'selector is LearnedAnchors'),
    'class scores': (R18, {'bbox_head__query_selector__type': 'ClassScoreQuerySelector'}, 'ClassScoreQuerySelector'),
    'learned content': (R18, {'bbox_head__query_selector__learned_content': True}, 'learned_content is True'),
    'agnostic': (R18, {'bbox_head__query_selector__class_agnostic': True}, 'class_agnostic is True'),
    'points per level': (V2, {'bbox_head__decoder__num_points': [3, 5, 2]}, r'num_points is \[3, 5, 2\]'),
    'SiLU': (R18, {'bbox_head__decoder__act_cfg': {'type': 'SiLU'}}, "act_cfg is .*SiLU.*'ReLU'"),
    'position codes': (R18, {'bbox_head__decoder__query_pos': {'num_layers': 3}}, 'query_pos is'),
    'group norm': (R18, {'neck__norm_cfg': {'type': 'GN', 'num_groups': 8}}, r'neck\.norm_cfg is .*batch norms'),
    'an eps': (R18, {'backbone__norm_cfg': {'type': 'BN', 'eps': 1e-3}}, r'backbone\.norm_cfg is .*1e-5'),
    "D-FINE's neck": (R18, {'neck__fusion': 'elan'}, "neck.fusion is 'elan'"),
    "RT-DETR's neck": (N, {'neck__fusion': 'csp'}, "neck.fusion is 'csp'"),
    'more maps': (R18, {'neck__num_outs': 4, 'bbox_head__in_channels': [32] * 4}, 'num_outs is 4'),
    'dilation': (R18, {'backbone__dilations': (1, 1, 1, 2)}, 'dilations is'),
    'ResNet': (R18, {'backbone__type': 'ResNetV1d'}, 'backbone is ResNetV1d'),
    'calibration': (R18, {'test_cfg__calibration': {'scores': [0, 1], 'precision': [0, 1]}}, 'calibration is set'),
    'overlaps': (R18, {'test_cfg__overlap_thr': 0.7}, 'overlap_thr is set'),
    'BGR': (R18, {'data_preprocessor__bgr_to_rgb': False}, 'gives channels as BGR'),
}


@pytest.mark.parametrize('name', list(REFUSED))
def test_what_transformers_cannot_express_is_refused(name: str) -> None:
    config, overrides, message = REFUSED[name]
    with pytest.raises(InputError, match=message) as caught:
        transformers_config(config_of(config, **overrides), CLASSES)
    assert '\n' not in str(caught.value)


def test_inputs_that_are_not_square_need_what_transformers_has(tiny: Config) -> None:
    cfg = Config(tiny.to_dict())
    step = cfg.test_dataloader.dataset.pipeline[1]
    step.scale = (640, 480)
    with pytest.raises(InputError, match=r"resizes to 640 x 480.*position_order='column_major'"):
        transformers_config(cfg, CLASSES)
    cfg.model.neck.position_order = 'row_major'
    assert transformers_config(cfg, CLASSES).preprocessor['size'] == {'height': 480, 'width': 640}
    cfg.model.bbox_head.decoder.sampling = 'discrete'
    with pytest.raises(InputError, match="sampling='discrete'"):
        transformers_config(cfg, CLASSES)
    step.update(scale=(640, 640), keep_ratio=True)
    with pytest.raises(InputError, match='keep_ratio'):
        transformers_config(cfg, CLASSES)
    del cfg.test_dataloader.dataset.pipeline[1]
    with pytest.raises(InputError, match='a test pipeline with a Resize'):
        transformers_config(cfg, CLASSES)


def test_explicit_defaults_and_training_alone_change_nothing(tiny: Config) -> None:
    cfg, expected = Config(tiny.to_dict()), transformers_config(tiny, CLASSES)
    cfg.model.bbox_head.decoder.update(act_cfg={'type': 'ReLU', 'inplace': True}, dropout=0.1, with_cp=True)
    cfg.model.neck.update(encoder_levels=[2], act_cfg={'type': 'SiLU'}, norm_cfg={'type': 'SyncBN'}, num_outs=None)
    cfg.model.bbox_head.criterion.loss_cls.loss_weight = 3.0
    cfg.model.bbox_head.denoising.contrastive = False
    assert transformers_config(cfg, CLASSES) == expected


# --- the tool ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def files(tiny: Config, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A checkpoint and its config."""
    root = tmp_path_factory.mktemp('files')
    tiny.dump(root / 'config.py')
    with quietly():
        torch.manual_seed(0)
        weights = MODELS.build(tiny.model).state_dict()
    torch.save({'state_dict': weights, 'meta': {}}, root / 'a.pth')
    return root / 'a.pth', root / 'config.py'


def test_the_tool_called_again(
    tool: Any, files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    checkpoint, config = files
    folder = tmp_path / 'new' / 'hub'
    command = [str(checkpoint), str(folder), '--source', 'mmdet', '--target', 'transformers', '--config', str(config)]
    assert tool.main(command) == 0
    names = {'config.json', 'preprocessor_config.json', 'model.safetensors'}
    assert {path.name for path in folder.iterdir()} == names and [*folder.parent.iterdir()] == [folder]
    assert 'written (transformers)' in capsys.readouterr().out
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}
    assert tool.main(command) == 0
    assert 'nothing to do' in capsys.readouterr().out
    assert before == {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}
    (folder / 'config.json').unlink()
    assert tool.main(command) == 0
    assert {path: path.read_bytes() for path in folder.iterdir()} == {path: item[0] for path, item in before.items()}

    more = ['--source-classes', ','.join(CLASSES), '--classes', ','.join(reversed(CLASSES))]
    assert tool.main([*command, *more]) == 2
    assert 'hub exists already, of another conversion (source_classes' in capsys.readouterr().err
    assert tool.main([*command, *more, '--force']) == 0
    assert json.loads((folder / 'config.json').read_text(encoding='utf-8'))['id2label']['0'] == CLASSES[-1]


@pytest.mark.parametrize('normalised', [False, True])
def test_preprocessing_comes_back_from_the_folder(
    normalised: bool, tiny: Config, files: tuple[Path, Path], tmp_path: Path
) -> None:
    """Not that of the authors' models, so that no tool notes a difference where there is none."""
    cfg = Config(tiny.to_dict())
    if normalised:
        cfg.model.data_preprocessor.update(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
    convert_file(files[0], tmp_path / 'theirs', 'mmdet', target='transformers', config=cfg)
    convert_file(tmp_path / 'theirs', tmp_path / 'ours.pth', 'transformers')
    assert checkpoint_notes(cfg, tmp_path / 'ours.pth') == []
    assert read_checkpoint(tmp_path / 'ours.pth')['meta']['preprocessing']['scale'] == [SIZE, SIZE]
    (tmp_path / 'theirs' / 'preprocessor_config.json').write_text('{"size": {"longest_edge": 640}}')
    convert_file(tmp_path / 'theirs', tmp_path / 'ours.pth', 'transformers', force=True)
    assert read_checkpoint(tmp_path / 'ours.pth')['meta']['preprocessing'] == RTDETR


def test_a_folder_of_something_else_stays(tool: Any, files: tuple[Path, Path], tmp_path: Path) -> None:
    """A model of transformers' own, and a folder that has but a config."""
    checkpoint, config = files
    command = ['--source', 'mmdet', '--to', 'transformers', '--config', str(config)]
    (tmp_path / 'config.json').write_text('{}')
    assert tool.main([str(checkpoint), str(tmp_path), *command]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ['config.json']
    pytest.importorskip('safetensors.torch').save_file({'a': torch.zeros(1)}, tmp_path / 'model.safetensors')
    assert tool.main([str(checkpoint), str(tmp_path), *command]) == 2
    assert (tmp_path / 'config.json').read_text() == '{}'


def test_the_tool_says_what_is_wrong_and_writes_nothing(
    tool: Any, files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    checkpoint, config = files
    to, folder = ['--source', 'mmdet', '--to', 'transformers'], str(tmp_path / 'hub')
    mistakes = {
        '--config and --to transformers belong together': [str(checkpoint), folder, *to],
        'names a file; name a folder, as transformers reads': [
            str(checkpoint),
            f'{folder}.pth',
            *to,
            '--config',
            str(config),
        ],
        'does not fit the model': [str(checkpoint), folder, *to, '--config', R50_M],
        'was trained for another number of classes': [str(checkpoint), folder, *to, '--config', 'other.py'],
    }
    cfg = Config.fromfile(config)
    cfg.model.bbox_head.num_classes, cfg.test_dataloader.dataset.metainfo.classes = 2, ('a', 'b')
    cfg.dump(tmp_path / 'other.py')
    for message, arguments in mistakes.items():
        arguments = [str(tmp_path / 'other.py') if word == 'other.py' else word for word in arguments]
        assert tool.main(arguments) == 2
        error = capsys.readouterr().err
        assert message in error and error.startswith('error: ') and error.count('\n') == 1
    cfg.test_dataloader.dataset.metainfo.classes = ('a', 'b', 'c')
    with pytest.raises(InputError, match='num_classes is 2, but 3 classes have names'):
        transformers_config(cfg, ('a', 'b', 'c'))
    assert [path.name for path in tmp_path.iterdir()] == ['other.py']


def test_names_alone(files: tuple[Path, Path]) -> None:
    """``convert_back`` knows no config: it renames, and splits what is joined."""
    weights = read_checkpoint(files[0])['state_dict']
    theirs = convert_back(weights, 'transformers')
    back = convert(theirs, 'transformers')
    assert back.keys() == weights.keys() and all(torch.equal(back[key], weights[key]) for key in back)
    joined = sum('in_proj_' in key for key in weights)
    assert len(theirs) == len(weights) + 2 * joined
