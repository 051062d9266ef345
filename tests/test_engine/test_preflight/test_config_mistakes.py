"""A mistake in a config ends in one sentence that names the entry, before work starts. Each case is a line of one."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import Any

import mmdet
import pytest
from mmengine.config import Config
from mmengine.config import config as config_module
from mmengine.visualization import Visualizer
from runs import SMALL_MODEL

from mmdet_iouquery import find_coco_set
from mmdet_iouquery.apps.analyze import analyze
from mmdet_iouquery.apps.calibrate.command import calibrate
from mmdet_iouquery.apps.quickstart.command import config_text
from mmdet_iouquery.apps.quickstart.digits import build_digits
from mmdet_iouquery.config_options import likely_misspelt, merge_options
from mmdet_iouquery.engine import launch
from mmdet_iouquery.engine.preflight.config_mistakes import entry_of, named_mistakes, text_of
from mmdet_iouquery.errors import InputError, TrainingStopped

LOAD = "dict(type='LoadImageFromFile')"
RESIZE = "dict(type='Resize', scale=(64, 64), keep_ratio=False)"
BOXES = "dict(type='LoadAnnotations', with_bbox=True)"
PACK = "dict(type='PackDetInputs')"
IN_STAGE = "dict(type='InStages', stages=['mosaic'], transforms=[dict(type='QuarterMosaic')])"
TIMETABLE = "custom_hooks = [dict(type='AugmentationTimetableHook', timetable=[('plain', 0), ('mosaic', 1)])]"
BY_STEP = TIMETABLE.replace(', timetable', ', by_epoch=False, timetable')
MISSPELT = "dict(type='Resise', scale=(64, 64))"


def pipeline(split: str, *steps: str) -> str:
    return f"{split}_dataloader['dataset']['pipeline'] = [{', '.join(steps)}]"


RETINA = "dict(_delete_=True, type='RetinaHead', num_classes=10, in_channels=32, feat_channels=32, stacked_convs=1)"
MISTAKES: dict[str, tuple[str, ...]] = {
    # --- parts that do not fit each other
    "model['neck']['in_channels'] = [32, 64, 256]": (
        'a training step fails at model.neck',
        'model.backbone gives 3 maps of 32, 64, 128 channels',
        'model.neck is built for in_channels=[32, 64, 256]',
    ),
    "model['backbone']['out_indices'] = (3, 4)": (
        'model.backbone gives 2 maps of 64, 128 channels',
        'model.neck is built for in_channels=[32, 64, 128]',
    ),
    "model['neck'] = dict(_delete_=True, type='FPN', in_channels=[32, 64], out_channels=32, num_outs=3)": (
        'fails at model.neck: AssertionError',
        'len(inputs) == len(self.in_channels)',
        'gives 3 maps',
    ),
    "model['bbox_head']['in_channels'] = [32, 32, 64]": (
        'a training step fails at model.bbox_head',
        'to have 64 channels',
        'model.neck gives 3 maps of 32, 32, 32 channels',
    ),
    "model['bbox_head']['in_channels'] = [32] * 4": ('model.bbox_head', 'built for 4 maps', 'given 3'),
    "model['bbox_head']['in_channels'] = [32] * 2": ('model.bbox_head', 'built for 2 maps', 'given 3'),
    "model['bbox_head']['decoder']['num_levels'] = 2": ('model.bbox_head.decoder', 'built for 2 levels'),
    "model['bbox_head']['decoder']['embed_dims'] = 64": ('model.bbox_head.decoder', 'it was model.bbox_head.decoder.'),
    f"model['bbox_head'] = {RETINA}": ('model.bbox_head: AssertionError', 'self.prior_generator.num_levels'),
    # --- what mmengine and torch look at late, or do not name
    "default_hooks['checkpoint']['intervall'] = 2": (
        "default_hooks.checkpoint: CheckpointHook has no argument 'intervall'",
        'did you mean interval',
    ),
    "default_hooks['checkpoint']['save_optimiser'] = False": ('no argument', 'did you mean save_optimizer'),
    "default_hooks['checkpoint']['interval'] = 'often'": ("default_hooks.checkpoint.interval='often' must be a whole",),
    "default_hooks['checkpoint']['max_keep_ckpts'] = 'two'": ("max_keep_ckpts='two' must be a whole number",),
    "train_cfg['val_interval'] = 0": ('train_cfg.val_interval=0 must be a whole number from 1 on',),
    "train_cfg['val_interval'] = 1.5": ('train_cfg.val_interval=1.5 must be',),
    "train_cfg['val_interval'] = None": ('train_cfg.val_interval=None must be',),
    "default_hooks['checkpoint']['interval'] = None": (
        'checkpoint.interval=None must be a whole number',
        '-1 for none',
    ),
    "default_hooks['visualization'] = None": (
        'default_hooks.visualization=None: mmengine takes None for',
        '_delete_=True',
    ),
    "train_cfg['max_iters'] = -3": ('train_cfg.max_iters=-3 must be a whole number from 1 on',),
    "train_cfg['max_iters'] = 2.5": ('train_cfg.max_iters=2.5 must be a whole number',),
    "train_dataloader['num_workers'] = 'two'": ("train_dataloader.num_workers='two' must be a whole number from 0 on",),
    "val_dataloader['batch_size'] = True": ('val_dataloader.batch_size=True must be a whole number from 1 on',),
    "param_scheduler = [dict(type='LinearLR', end='abc')]": ("param_scheduler[0].end='abc' must be a whole number",),
    "log_level = 'INF'": ("log_level='INF' must be one of CRITICAL, ERROR, WARNING, INFO, DEBUG, NOTSET",),
    "sharing_strategy = 'files'": ("sharing_strategy='files' must be one of file_descriptor, file_system",),
    "randomness = dict(seed='abc')": ("randomness.seed='abc' must be a whole number from 0 on",),
    "custom_hooks = [dict(type='NumClassCheckHook', begin=3)]": (
        'custom_hooks[0]',
        'NumClassCheckHook() takes no arguments; remove begin from the entry',
    ),
    'randomness = dict(sead=1)': ("randomness: set_randomness has no argument 'sead'; did you mean seed?",),
    "optim_wrapper = dict(optimizer=dict(lr='fast'))": (
        "optim_wrapper.optimizer.lr='fast' must be a number from 0 on",
    ),
    'optim_wrapper = dict(optimizer=dict(weight_decay=-1))': ('optim_wrapper.optimizer.weight_decay=-1 must be',),
    'optim_wrapper = dict(optimizer=dict(lr=float("nan")))': ('optim_wrapper.optimizer.lr=nan must be',),
    'optim_wrapper = dict(clip_grad=dict(max_norms=0.1))': (
        "optim_wrapper.clip_grad: clip_grad_norm_ has no argument 'max_norms'; did you mean max_norm",
    ),
    'train_dataloder = dict(batch_size=2)': ('nothing reads train_dataloder; did you mean train_dataloader?',),
    # --- names and arguments
    "model['neck']['type'] = 'HybridEncodr'": (
        "building the run fails at model.neck: no type 'HybridEncodr' is registered (mmdet::model)",
        'did you mean HybridEncoder',
        'custom_imports',
    ),
    "model['neck']['out_chanels'] = 32": ('model.neck: TypeError', 'did you mean out_channels'),
    "model['backbone'] = dict(_delete_=True, type='VisionTransformer', arch='tiny', num_heads=5)": (
        "unexpected keyword argument 'num_heads'; VisionTransformer takes arch, size_cfg, out_indices,",
    ),
    "model['backbone'] = dict(_delete_=True, type='VisionTransformer', arch='tiny', size_cfg='5')": (
        "model.backbone: size_cfg must be a dict, such as dict(name=value), or None, got '5'",
    ),
    "model['bbox_head']['criterion'] = dict(type='SetCriterion', loss_cls=dict(type='IoUVarifocLoss'))": (
        'model.bbox_head.criterion.loss_cls',
        'did you mean IoUVarifocalLoss',
    ),
    "model['bbox_head']['criterion'] = dict(los_cls=dict(type='IoUVarifocalLoss'))": (
        'model.bbox_head.criterion: TypeError',
        'did you mean loss_cls',
    ),
    "model['test_cfg']['score_threshold'] = 0.5": ('model.bbox_head: ValueError', "['score_threshold']"),
    "model['backbone'] = 'R18'": ('building the run fails at model: TypeError', "<class 'str'>"),
    "custom_hooks = [dict(type='EMAHok')]": ('custom_hooks[0]', 'did you mean EMAHook'),
    'default_hooks = dict(logger=dict(intervall=3))': ('default_hooks.logger: TypeError', 'did you mean interval'),
    "log_processor = dict(type='LogProcesor')": ('log_processor', 'did you mean LogProcessor'),
    "visualizer = dict(type='DetLocalVisualiser')": ('visualizer', 'did you mean DetLocalVisualizer'),
    "train_dataloader['sampler'] = dict(type='InfinitSampler')": (
        'building the training fails at train_dataloader.sampler',
        'did you mean InfiniteSampler',
    ),
    "val_dataloader['dataset']['type'] = 'CocoDatast'": ('val_dataloader.dataset:', "'CocoDatast' is registered"),
    "train_cfg['type'] = 'IterBasedTrainLop'": ('train_cfg', 'did you mean IterBasedTrainLoop'),
    "train_cfg = dict(_delete_=True, type='EpochBasedTrainLoop')": ('train_cfg: TypeError', "'max_epochs'"),
    "optim_wrapper = dict(optimizer=dict(type='AdamWW'))": ('optim_wrapper.optimizer', 'did you mean AdamW'),
    "optim_wrapper = dict(type='OptimWraper')": ('at optim_wrapper', 'did you mean OptimWrapper'),
    "optim_wrapper = dict(constructor='Nobody')": ('at optim_wrapper', "no type 'Nobody' is registered"),
    "param_scheduler = [dict(type='LinearLRR')]": ('param_scheduler[0]', 'did you mean LinearLR'),
    "param_scheduler = [dict(type='LinearLR', start_factor=0.1, unit='step')]": ('param_scheduler[0]', "'unit'"),
    "param_scheduler = [dict(type='FlatCosineLR', flat_end=9**9, decay_end=9**9, by_epoch=False)]": (
        'param_scheduler[0]: FlatCosineLR: decay_end (387420489 steps) lies after the run',
    ),
    # --- data
    pipeline('train', LOAD, BOXES, MISSPELT, PACK): ('train_dataloader.dataset.pipeline[2]', 'did you mean Resize'),
    pipeline('val', LOAD, MISSPELT, PACK): ('val_dataloader.dataset.pipeline[1]', 'did you mean Resize'),
    f"custom_hooks = [dict(type='PipelineSwitchHook', switch_epoch=9, switch_pipeline=[{LOAD}, {MISSPELT}])]": (
        'custom_hooks[0].switch_pipeline[1]',
        'did you mean Resize',
    ),
    f'{pipeline("train", LOAD, BOXES, IN_STAGE, RESIZE, PACK)}\n{TIMETABLE}': (
        'QuarterMosaic needs further images: put it into the pipeline of',
        'MultiImageDataset',
    ),
    pipeline('train', LOAD, RESIZE, PACK): ('train_dataloader come without bboxes and labels', 'LoadAnnotations'),
    pipeline('train', LOAD, "dict(type='FilterAnnotations')", BOXES, PACK): (
        'train_dataloader.dataset.pipeline[1]: AssertionError',
        "'gt_bboxes' in results",
    ),
    pipeline('train', LOAD, BOXES, RESIZE): ('train_dataloader: the pipeline gives a dict of', 'PackDetInputs'),
    pipeline('val', LOAD, RESIZE, BOXES): ('val_dataloader: the pipeline gives a dict of', 'PackDetInputs'),
    pipeline('val', LOAD, RESIZE, BOXES, "dict(type='PackDetInputs', meta_keys=('scale_factor', 'img_shape'))"): (
        'evaluating an image fails at val_evaluator[0]',
        'val_dataloader come without img_id: name it in meta_keys',
    ),
    pipeline('val', LOAD, RESIZE, BOXES, "dict(type='PackDetInputs', meta_keys=('img_id', 'ori_shape'))"): (
        'predicting an image fails at model.bbox_head',
        'val_dataloader come without img_shape: name it in meta_keys',
    ),
    "model['data_preprocessor'] = dict(_delete_=True, type='ImgDataPreprocessor')": (
        'come without batch_input_shape',
        'DetDataPreprocessor',
    ),
    "train_dataloader['num_workers'], train_dataloader['persistent_workers'] = 0, True": (
        'building the training fails at train_dataloader: ValueError',
        'set persistent_workers=False there, or num_workers to 1 or more',
    ),
    "train_dataloader['batch_size'] = 0": ('train_dataloader.batch_size=0 must be a whole number from 1 on',),
    "train_dataloader.update(batch_size=64, drop_last=True, sampler=dict(type='DefaultSampler', shuffle=True))\n"
    "train_dataloader['batch_sampler'] = None\n"
    "train_cfg = dict(_delete_=True, type='EpochBasedTrainLoop', max_epochs=1)": (
        'train_dataloader gives no batch: of 4 images in batches of 64',
    ),
    # --- evaluation and logging
    "val_evaluator[0]['metric'] = ['bbox', 'segm']": (
        'evaluating an image fails at val_evaluator[0]',
        'segm is not in results',
        'the model predicts bboxes, labels, scores',
    ),
    "val_evaluator[0]['metric'] = 'bbocks'": ('building the evaluation fails at val_evaluator[0]', 'bbocks'),
    "val_evaluator[0]['metric_items'] = ['mAP_55']": ('val_evaluator[0]', 'mAP_55'),
    "val_evaluator[0]['type'] = 'CocoMetrik'": ('val_evaluator[0]', 'did you mean CocoMetric'),
    "val_evaluator[0]['clas_wise'] = True": ('val_evaluator[0]: TypeError', 'did you mean classwise'),
    "val_evaluator[0]['ann_file'] = None": ('val_evaluator[0]: AssertionError: ground truth is required',),
    "model['bbox_head']['query_selector'] = dict(_delete_=True, type='LearnedAnchors', num_queries=5)": (
        'val_evaluator[1]',
        'the model does not tell of its selected queries',
    ),
    "default_hooks = dict(checkpoint=dict(save_best='coco/segm_mAP'))": (
        "default_hooks.checkpoint.save_best='coco/segm_mAP'",
        'name one of these: coco/bbox_mAP,',
    ),
    "visualizer = dict(vis_backends=[dict(type='LocalVisBackend'), dict(type='WandbVisBackend')])": (
        'building the run fails at visualizer.vis_backends[1]: ImportError',
        'install',
    ),
    # --- what is done last before the first step
    "custom_hooks = [dict(type='EMAHook'), dict(type='MatchingCostHook', begin=9, by_epoch=False)]": (
        'custom_hooks[1]: MatchingCostHook has begin=9, and the run has 4 steps',
    ),
    f"model['data_preprocessor'] = dict(batch_augments=[dict(type='BatchMixUp', stages=['mosaik'])])\n{BY_STEP}": (
        "custom_hooks[0]: BatchMixUp waits for stage 'mosaik', and the timetable of AugmentationTimetableHook has",
    ),
    "model['backbone']['init_cfg'] = dict(type='Pretrained')": (
        'starting the training fails at model.backbone',
        "'checkpoint'",
    ),
    "custom_hooks = [dict(type='EMAHook', ema_type='NoEMA')]": ('starting the training fails', "'NoEMA'"),
    # --- entries
    "val_dataloader = 'x'": ("val_dataloader must be a dict, such as dict(type='...'), got 'x'",),
    'optim_wrapper = 5': ('optim_wrapper must be a dict', 'got 5'),
    "val_evaluator = 'CocoMetric'": ("val_evaluator must be dicts, such as [dict(type='...')], got 'CocoMetric'",),
    'env_cfg = None': ('lacks env_cfg, which training needs',),
    'val_evaluator = None': ('val_dataloader and val_cfg without val_evaluator', 'needs all three'),
    'test_cfg = None': ('test_dataloader and test_evaluator without test_cfg', 'needs all three'),
    'train_cfg = None': ('lacks train_cfg, which training needs',),
    'optim_wrapper = None': ('lacks optim_wrapper, which training needs',),
    "custom_imports = dict(imports=['nobody.knows_it'])": ('reading ', 'nobody.knows_it'),
    "_base_ = ['nowhere.py']": ('reading ', 'nowhere.py'),
    'x = (': ('reading ', 'SyntaxError'),
}


@pytest.fixture(scope='module')
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The config of a small model on four images."""
    root = tmp_path_factory.mktemp('data') / 'digits'
    build_digits(root, num_train=4, num_val=2, image_size=96, progress=False)
    return config_text(find_coco_set(root), iters=4, image_size=64) + SMALL_MODEL + 'custom_hooks = []\n'


@pytest.mark.parametrize('mistake', MISTAKES)
def test_one_sentence_before_training(mistake: str, text: str, tmp_path: Path) -> None:
    config = tmp_path / 'config.py'
    config.write_text(f'{text}{mistake}\n' if '_base_' not in mistake else mistake)
    with pytest.raises(InputError) as refused:
        launch.train([str(config), '--work-dir', str(tmp_path / 'run')])
    message = str(refused.value)
    assert '\n' not in message and all(words in message for words in MISTAKES[mistake]), message
    assert not (tmp_path / 'run').exists()


def test_a_back_end_that_is_installed_is_none(text: str) -> None:
    """The case above rests on Weights & Biases not being installed beside the tests."""
    with pytest.raises(ImportError):
        __import__('wandb')


def test_before_a_test_too(text: str, tmp_path: Path) -> None:
    """No training, the same trial: the checkpoint is only looked at, and files of an earlier test stay."""
    config, run = tmp_path / 'config.py', tmp_path / 'run'
    config.write_text(f'{text}train_cfg["max_iters"] = 1\nparam_scheduler = []\n')
    launch.train([str(config), '--work-dir', str(run), '--no-check'])
    earlier = tmp_path / 'out.bbox.json'
    earlier.write_text('of an earlier test')
    arguments = [str(config), str(run / 'iter_1.pth'), '--work-dir', str(run), '--out', str(tmp_path / 'out')]
    with pytest.raises(InputError, match=r'evaluating an image fails at test_evaluator\[0\]: KeyError: segm is not in'):
        launch.test([*arguments, '--cfg-options', "test_evaluator.0.metric=['bbox','segm']"])
    with pytest.raises(InputError, match='lacks test_dataloader, which a test needs'):
        launch.test([*arguments, '--cfg-options', 'test_dataloader=None'])
    with pytest.raises(InputError, match=r'predicting an image fails at model.backbone: RuntimeError: .*Conv2d, given'):
        launch.test([*arguments, '--prepare', '--dtype', 'bfloat16'])  # CSPNeXt has no half precision
    (tmp_path / 'text.pth').write_text('an error page')
    nowhere = ['--work-dir', str(tmp_path / 'new'), '--cfg-options', 'test_dataloader.dataset.ann_file=gone.json']
    for checkpoint, message in (('text.pth', 'text.pth is no checkpoint'), ('run/iter_1.pth', 'gone.json')):
        with pytest.raises(InputError, match=message):
            launch.test([str(config), str(tmp_path / checkpoint), *nowhere])
        assert not (tmp_path / 'new').exists()
    out = ['--out', str(earlier / 'x'), '--cfg-options', 'test_dataloader.dataset.ann_file=gone.json']
    with pytest.raises(InputError, match=f'cannot write to the folder {earlier}: .*; name another with --out'):
        launch.test([str(config), str(run / 'iter_1.pth'), '--work-dir', str(run), *out])
    assert earlier.read_text() == 'of an earlier test'
    Visualizer._instance_dict.clear()
    assert 'coco/bbox_mAP' in launch.test(arguments)
    assert earlier.read_text().startswith('[')


def test_a_fault_of_ones_own_module_keeps_its_cause(text: str, tmp_path: Path) -> None:
    """What it says stands in the sentence, the exception hangs on it, and the traceback is on the disk."""
    (tmp_path / 'own_neck.py').write_text(
        'from mmdet.registry import MODELS\n'
        'from mmdet_iouquery.models.necks import HybridEncoder\n'
        '@MODELS.register_module(force=True)\n'
        'class OwnNeck(HybridEncoder):\n'
        '    def forward(self, maps):\n'
        "        raise ZeroDivisionError('my own fault')\n"
    )
    config = tmp_path / 'config.py'
    config.write_text(
        f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\ndel sys\ncustom_imports = dict(imports=['own_neck'])\n"
        f"{text}model['neck']['type'] = 'OwnNeck'\n"
    )
    with pytest.raises(InputError, match=r'a training step fails at model.neck: ZeroDivisionError: my own fault') as it:
        launch.train([str(config), '--work-dir', str(tmp_path / 'run')])
    assert isinstance(it.value.__cause__, ZeroDivisionError)
    assert 'it was model.neck, a OwnNeck, given' not in str(it.value)  # maps come as a list
    assert '--no-check' in str(it.value)
    kept = Path(str(it.value).rpartition('(traceback: ')[2].rstrip(')')).read_text()
    assert not (tmp_path / 'run').exists()
    assert 'own_neck.py' in kept and kept.rstrip().endswith('ZeroDivisionError: my own fault')


def test_only_the_start_is_a_matter_of_the_config(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the first step on, an exception of another's is one: with its traceback, on lines of its own."""
    (tmp_path / 'own_hook.py').write_text(
        'from mmdet.registry import HOOKS\n'
        'from mmengine.hooks import Hook\n'
        '@HOOKS.register_module(force=True)\n'
        'class OwnHook(Hook):\n'
        '    def __init__(self, stage):\n'
        '        setattr(self, stage, self.fail)\n'
        '    def fail(self, runner, *args, **kwargs):\n'
        "        raise ZeroDivisionError('my own fault')\n"
    )
    imports = (
        f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\ndel sys\ncustom_imports = dict(imports=['own_hook'])\n"
    )
    for stage, kind in (('before_train', InputError), ('before_train_iter', ZeroDivisionError)):
        config = tmp_path / f'{stage}.py'
        config.write_text(
            f"{imports}{text}custom_hooks = [dict(type='OwnHook', stage='{stage}'), dict(type='ProgressHook')]\n"
        )
        with pytest.raises(kind, match='my own fault'):
            launch.train([str(config), '--work-dir', str(tmp_path / stage)])
        assert (tmp_path / stage).exists() == (stage == 'before_train_iter')
        bar = re.findall('\rtraining: .*\n?', capsys.readouterr().err)
        assert [line[-1] for line in bar[-1:]] == ['\n'] * (stage == 'before_train_iter')


@pytest.mark.parametrize('interrupt', [KeyboardInterrupt(), TrainingStopped(signal.SIGTERM, 'here')], ids=repr)
def test_an_interrupt_is_none_of_the_configs_mistakes(
    interrupt: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    """mmengine's layout of a config turns it into a SyntaxError."""

    def interrupted(*_: object, **__: object) -> None:
        raise interrupt

    monkeypatch.setattr('yapf.yapflib.yapf_api.FormatCode', interrupted)
    if hasattr(config_module, 'FormatCode'):
        monkeypatch.setattr(config_module, 'FormatCode', interrupted)
    cfg = Config(dict(a=1))
    with pytest.raises(type(interrupt)) as raised, named_mistakes(cfg, 'building the run'):
        cfg.pretty_text  # noqa: B018  a property that lays the text out
    assert raised.value is interrupt


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['model.bbox_head.num_classes'], "'model.bbox_head.num_classes' is no KEY=VALUE"),
        (['val_evaluator.ann_file=x'], 'such as val_evaluator.0.ann_file'),
        (['train_dataloder.batch_size=2'], 'nothing reads train_dataloder; did you mean train_dataloader?'),
    ],
)
@pytest.mark.parametrize('tool', [launch.train, analyze, calibrate], ids=['train', 'analyze', 'calibrate'])
def test_overrides_that_fit_nothing(
    tool: Any, words: list[str], message: str, text: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    config, checkpoint = tmp_path / 'config.py', tmp_path / 'a.pth'
    config.write_text(text)
    checkpoint.touch()
    files = [str(config)] if tool is launch.train else [str(config), str(checkpoint)]
    output = ['--work-dir' if tool is launch.train else '--out', str(tmp_path / 'out')]
    try:
        status = launch.run_tool(lambda: tool([*files, *output, '--cfg-options', *words]))
    except SystemExit as stop:  # argparse's
        status = stop.code
    assert status == 2 and message in capsys.readouterr().err


def test_overrides_that_come_too_late_are_noted(text: str, capsys: pytest.CaptureFixture) -> None:
    cfg = Config.fromstring(text, '.py')
    merge_options(cfg, {'max_iters': 9, 'device': 'cuda', 'train_cfg.max_iters': 7, 'model.bbox_head.num_classes': 3})
    notes = capsys.readouterr().out.splitlines()
    assert cfg.train_cfg.max_iters == 7
    assert len(notes) == 2
    assert 'max_iters=9 may change nothing: the file has used its value already' in notes[0]
    assert 'device=cuda may change nothing: mmengine reads no such name' in notes[1]


def test_no_name_in_mmdets_configs_is_taken_for_a_misspelt_one() -> None:
    """The counter-example to a refusal: what others call their own variables."""
    files = [*Path(mmdet.__file__).parent.glob('.mim/configs/**/*.py')]
    names = {name for path in files for name in re.findall(r'^(\w+) *=', path.read_text(encoding='utf-8'), re.M)}
    assert len(names) > 100
    assert not [name for name in [*names, 'models'] if likely_misspelt(name)]


def test_texts_are_one_short_line() -> None:
    assert text_of(KeyError('img_id')) == 'KeyError: img_id'
    assert text_of(ValueError('two\n  lines')) == 'ValueError: two lines'
    assert text_of(ValueError('x' * 9999)).endswith('x ...') and len(text_of(ValueError('x' * 9999))) < 600
    assert text_of(ValueError()) == 'ValueError: without a word'
    assert entry_of(ValueError('x'), {'model': {'type': 'RTDETR'}}) == ''
