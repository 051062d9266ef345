"""The comparison of configs: its numbers by hand, what it changes in a config, and a real one cut off and continued."""

from __future__ import annotations

import csv
import json
import math
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from form_sets import yolo_set
from helpers import build_detector, sample, small_detector
from mmengine.config import Config
from torch import nn

from mmdet_iouquery import config_path, find_coco_set, read_data
from mmdet_iouquery.apps.compare import command, compare, recorder, settings
from mmdet_iouquery.apps.compare.arguments import parser
from mmdet_iouquery.apps.compare.run_results import (
    Evaluation,
    RunResult,
    evaluation_of,
    loss_curve,
    read_result,
    write_result,
)
from mmdet_iouquery.apps.compare.schedule import set_iters
from mmdet_iouquery.apps.compare.table import comparison_table, mean_and_deviation
from mmdet_iouquery.apps.compare.times import Times, kept
from mmdet_iouquery.apps.compare.trade_off import Point, front, points
from mmdet_iouquery.apps.cost import count_flops, count_parameters, peak_memory_mb
from mmdet_iouquery.apps.quickstart.digits import build_digits
from mmdet_iouquery.apps.train.fit import Wishes
from mmdet_iouquery.config_options import flattened
from mmdet_iouquery.engine import launch
from mmdet_iouquery.errors import InputError, TrainingStopped

TOOLS = Path(__file__).parents[3] / 'tools'
QUICKSTART = 'quickstart/rtdetr_r18vd_digits.py'
RESULT = RunResult(
    config='plain',
    seed=0,
    steps=600,
    batch_size=4,
    image_size=(160, 192),
    val_set='digits/val.json',
    data_order='1f',
    device='2 threads on CPU',
    torch='2.13.0',
    finished='2026-11-21T10:00:00',
    parameters=20_184_464,
    flops=3_754_000_000,
    step_seconds=0.5,
    memory_mb=1300.4,
    evaluations=(
        Evaluation(300, 9.5, 0.1, 0.2, 0.1, None, 0.1, 0.0),
        Evaluation(600, 7.5, 0.4, 0.6, 0.5, None, 0.375, 1.0),
    ),
    losses=loss_curve([10.0, 8.0]),
)
FINAL = RESULT.final


def with_ap(result: RunResult, ap: float, **changes: object) -> RunResult:
    return replace(result, evaluations=(*result.evaluations[:-1], FINAL._replace(ap=ap)), **changes)


# --- the numbers ------------------------------------------------------------------------------------------------------


def test_mean_and_sample_deviation_by_hand() -> None:
    assert mean_and_deviation([1, 2, 6], 2) == '3.00 ± 2.65'  # sqrt((4 + 1 + 9) / 2)
    assert mean_and_deviation([40, 50], 1) == '45.0 ± 7.1'
    assert mean_and_deviation([0.1234], 3) == '0.123'
    assert mean_and_deviation([None, 2.0], 1) == '2.0'
    assert mean_and_deviation([None, None], 1) == mean_and_deviation([], 1) == '-'


def test_table_text_by_hand() -> None:
    other = with_ap(RESULT, 0.5, seed=3, step_seconds=0.75, memory_mb=1301.4)
    single = with_ap(RESULT, 0.3333, config='other', seed=0, step_seconds=None, parameters=5_000, device='H200')
    lines = comparison_table([RESULT, other, single]).splitlines()
    assert lines[:8] == [
        '- training steps: 600',
        '- batch size: 4',
        '- image size (height x width): 160 x 192 px',
        '- seeds: plain: 0, 3; other: 0',
        '- evaluated on: digits/val.json',
        '- torch: 2.13.0',
        '- device: plain: 2 threads on CPU; other: H200',
        '- date: 2026-11-21',
    ]
    assert lines[9].startswith('| config | seeds | AP | AP50 | AP75 | AP_s | AP_m | AP_l | parameters (M) |')
    assert lines[11:13] == [
        '| plain | 2 | 45.0 ± 7.1 | 60.0 ± 0.0 | 50.0 ± 0.0 | - | 37.5 ± 0.0 | 100.0 ± 0.0 | 20.18 | 3.75 '
        '| 0.625 ± 0.177 | 1301 ± 1 |',
        '| other | 1 | 33.3 | 60.0 | 50.0 | - | 37.5 | 100.0 | 0.01 | 3.75 | - | 1300 |',
    ]
    assert {line.count('|') for line in lines[9:13]} == {13}


def test_table_says_whether_the_images_came_in_the_same_order() -> None:
    same = 'For each seed, all configs got the same images in the same order.'
    other = replace(RESULT, config='other')
    assert same in comparison_table([RESULT, other, replace(RESULT, seed=1, data_order='2e')])
    text = comparison_table([RESULT, replace(other, data_order='2e')])
    assert same not in text and 'did not get the same images in the same order (seeds 0)' in text


def test_evaluation_reads_cocos_figures() -> None:
    names = ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l')
    metrics = {f'coco/bbox_{name}': value for name, value in zip(names, (0.4, 0.6, 0.5, -1.0, 0.3, 0.0))}
    evaluation = evaluation_of(30, [3.0, 1.0], {**metrics, 'coco/segm_mAP': 0.9})
    assert evaluation == Evaluation(30, 2.0, 0.4, 0.6, 0.5, None, 0.3, 0.0)
    nothing_found = evaluation_of(2, [math.nan, 1.0], {})
    assert nothing_found == Evaluation(2, None, 0.0, 0.0, 0.0, None, None, None)


def test_loss_curve_is_means_of_blocks() -> None:
    assert loss_curve([]) == () and loss_curve([5.0]) == ((1, 5.0),)
    curve = loss_curve([float(step) for step in range(1, 122)])  # 121 steps: 40 blocks of 3 and one of 1
    assert len(curve) == 41 and curve[0] == (3, 2.0) and curve[39] == (120, 119.0) and curve[40] == (121, 121.0)
    assert loss_curve([1.0, math.inf]) == ((1, 1.0), (2, None))


def test_flops_by_hand() -> None:
    assert count_flops(lambda: nn.Linear(3, 5)(torch.rand(2, 3))) == 2 * 2 * 3 * 5
    assert count_flops(lambda: nn.Conv2d(1, 4, 3, padding=1)(torch.rand(1, 1, 8, 6))) == 2 * 8 * 6 * 4 * 9
    attention, tokens = nn.MultiheadAttention(8, num_heads=2, batch_first=True).eval(), torch.rand(1, 5, 8)
    projections = 2 * 5 * 8 * (3 * 8 + 8)
    assert count_flops(lambda: attention(tokens, tokens, tokens, need_weights=False)) == projections + 2 * 2 * 5 * 5 * 8


def test_learned_queries_are_counted_too() -> None:
    """They reach modules as views of parameters, over which the counter's hooks stumble without gradients."""
    flops = []
    for selector in ('IoUAwareQuerySelector', 'LearnedAnchors'):
        model = small_detector(bbox_head__query_selector={'type': selector, '_delete_': True}).eval()
        flops.append(count_flops(lambda model=model: model(torch.rand(1, 3, 64, 64), mode='tensor')))
    tokens, width, queries = 8 * 8 + 4 * 4 + 2 * 2, 256, 300
    dense = 2 * tokens * width * (width + 5)  # projection and class head on every token
    chosen = 2 * min(queries, tokens) * (2 * width * width + 4 * width)  # box head on the chosen
    assert 0 < flops[0] - dense - chosen < flops[1]


def test_flops_and_parameters_are_the_papers() -> None:
    """Table 2 says 20 M and 60 G of RT-DETR-R18 at 640 x 640."""
    model = build_detector('rtdetr/rtdetr_r18vd_8xb2-72e_coco.py').eval()
    image, samples = torch.rand(1, 3, 640, 640), [sample([], [], (640, 640))]
    assert round(count_parameters(model) / 1e6) == 20
    # the table has whole G, and leaves out some operations
    assert count_flops(lambda: model(image, samples, mode='predict')) == pytest.approx(60e9, rel=0.02)


def test_parameters_by_hand() -> None:
    model = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5))
    model[0].requires_grad_(False)
    assert count_parameters(model) == 3 * 5 + 5 + 2 * 5


@pytest.mark.skipif(torch.cuda.is_available() or not Path('/proc/self/status').is_file(), reason='reads /proc')
def test_peak_memory_lies_between_what_is_resident_and_the_peak_of_all_programs_in_this_process() -> None:
    import resource

    pages = int(Path('/proc/self/statm').read_text().split()[1])
    resident_mb = pages * resource.getpagesize() / 1e6
    peak = peak_memory_mb()
    assert 0.95 * resident_mb <= peak <= 1.05 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


# --- the records ------------------------------------------------------------------------------------------------------


def test_result_comes_back_from_its_file(tmp_path: Path) -> None:
    assert read_result(tmp_path) is None
    write_result(tmp_path, RESULT)
    assert read_result(tmp_path) == RESULT and [path.name for path in tmp_path.iterdir()] == ['result.json']
    (tmp_path / 'result.json').write_text('{"config": "plain"}')
    with pytest.raises(InputError, match=r'result.json is not a result of `iouquery compare` .*remove it'):
        read_result(tmp_path)


def test_report_from_finished_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for config, seed in (('plain', 10), ('plain', 2), ('other', 2)):
        folder = tmp_path / config / f'seed_{seed}'
        folder.mkdir(parents=True)
        write_result(folder, replace(RESULT, config=config, seed=seed))
    (tmp_path / 'plain' / 'seed_3').mkdir()  # not finished

    def reported(*arguments: str) -> list[tuple[str, int]]:
        compare(TOOLS, [*arguments, '--work-dir', str(tmp_path), '--report-only'])
        assert capsys.readouterr().out == (tmp_path / 'table.md').read_text() + '\n'
        return [(entry['config'], entry['seed']) for entry in json.loads((tmp_path / 'results.json').read_text())]

    assert reported() == [('other', 2), ('plain', 2), ('plain', 10)]
    assert reported('configs/plain.py', 'other') == [('plain', 2), ('plain', 10), ('other', 2)]
    assert reported('--seeds', '10') == [('plain', 10)]
    assert (tmp_path / 'curves.png').is_file()
    with pytest.raises(InputError, match='third has no finished run of these seeds'):
        reported('plain.py', 'third.py')
    with pytest.raises(InputError, match='no finished run'):
        reported('--seeds', '4')
    for change, other in (
        (dict(image_size=(96, 96)), '600 steps of 4 images of 96x96 px'),
        (dict(steps=900), '900 steps of 4 images of 160x192 px'),
        (dict(batch_size=8), '600 steps of 8 images of 160x192 px'),
    ):
        write_result(tmp_path / 'plain' / 'seed_3', replace(RESULT, seed=3, **change))
        message = f'plain has runs .* .seed 2 and 10: 600 steps of 4 images of 160x192 px, seed 3: {other}.; name'
        with pytest.raises(InputError, match=message):
            reported()
        assert reported('--seeds', '2', '10') == [('other', 2), ('plain', 2), ('plain', 10)]
        assert reported('other.py') == [('other', 2)]


# --- the configs ------------------------------------------------------------------------------------------------------


def quickstart_config() -> Config:
    return Config.fromfile(config_path(QUICKSTART))


def phases(cfg: Config) -> list[tuple[int, int]]:
    return [(scheduler.begin, scheduler.end) for scheduler in cfg.param_scheduler]


@pytest.mark.parametrize(('iters', 'expected'), [(1200, [(0, 200), (600, 1200)]), (4, [(2, 4)])])
def test_iters_stretch_the_whole_schedule(iters: int, expected: list[tuple[int, int]]) -> None:
    cfg = quickstart_config()
    assert phases(cfg) == [(0, 150), (450, 900)]
    set_iters(cfg, iters, evaluations=4)
    assert cfg.train_cfg == {'type': 'IterBasedTrainLoop', 'max_iters': iters, 'val_interval': iters // 4}
    assert phases(cfg) == expected
    checkpoint = cfg.default_hooks.checkpoint
    assert (checkpoint.interval, checkpoint.by_epoch, checkpoint.backend_args.backend) == (iters // 4, False, 'atomic')


def test_an_uneven_interval_never_evaluates_more_often() -> None:
    cfg = quickstart_config()
    set_iters(cfg, 10, evaluations=3)
    assert cfg.train_cfg.val_interval == 4  # at 4, 8 and 10


def test_iters_turn_epochs_into_steps() -> None:
    cfg = Config.fromfile(config_path('rtdetr/rtdetr_r18vd_8xb2-72e_coco.py'))
    cfg.param_scheduler = [
        dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=2000),
        dict(type='MultiStepLR', by_epoch=True, begin=0, milestones=[36, 60], gamma=0.1),
        dict(type='CosineAnnealingLR', begin=36, end=72, T_max=36, convert_to_iter_based=True),
        dict(type='ExponentialLR', gamma=0.5),
    ]
    set_iters(cfg, 720, evaluations=5)
    assert cfg.train_cfg == {'type': 'IterBasedTrainLoop', 'max_iters': 720, 'val_interval': 144}
    warm_up, steps, cosine, exponential = cfg.param_scheduler
    assert (warm_up.begin, warm_up.end) == (0, 72)  # 2000 steps are more than a tenth of 720
    assert steps.milestones == [360, 600]
    assert (cosine.begin, cosine.end, cosine.T_max) == (360, 720, 360) and 'convert_to_iter_based' not in cosine
    assert exponential.gamma**10 == pytest.approx(0.5)  # ten steps stand for an epoch
    assert not any(scheduler.by_epoch for scheduler in cfg.param_scheduler)
    assert cfg.train_dataloader.sampler == {'type': 'InfiniteSampler', 'shuffle': True}
    assert cfg.log_processor.by_epoch is False


@pytest.mark.parametrize(('iters', 'warm_up'), [(580, 58), (29_000, 2000)])
def test_the_phases_of_a_flat_cosine_are_stretched_and_its_warm_up_is_at_most_a_tenth(iters: int, warm_up: int) -> None:
    cfg = Config.fromfile(config_path('rtdetr/rtdetr_r18vd_8xb2-72e_coco.py'))
    cfg.train_cfg.max_epochs = 58
    flat_cosine = dict(type='FlatCosineLR', warmup_iters=2000, flat_end=29, decay_end=50, convert_to_iter_based=True)
    cfg.param_scheduler = [flat_cosine]
    set_iters(cfg, iters, evaluations=5)
    phases = dict(warmup_iters=warm_up, flat_end=iters // 2, decay_end=iters * 50 // 58)
    assert cfg.param_scheduler == [dict(type='FlatCosineLR', by_epoch=False, **phases)]
    set_iters(cfg, iters // 2, evaluations=5)  # from steps to steps, the warm-up with the rest
    assert cfg.param_scheduler[0].warmup_iters == warm_up // 2
    assert cfg.param_scheduler[0].flat_end == iters // 4


def test_a_short_warm_up_keeps_its_steps() -> None:
    cfg = Config.fromfile(config_path('rtdetr/rtdetr_r18vd_8xb2-72e_coco.py'))
    set_iters(cfg, 40_000, evaluations=5)
    assert phases(cfg) == [(0, 2000)]


def test_hooks_that_count_epochs_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    cfg = Config.fromfile(config_path('rtdetr/rtdetr_r18vd_8xb2-72e_coco.py'))
    cfg.custom_hooks = [*cfg.custom_hooks, dict(type='PipelineSwitchHook', switch_epoch=60)]
    set_iters(cfg, 100, evaluations=5)
    assert 'PipelineSwitchHook counts epochs (switch_epoch)' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('iters', 'stages'),
    [
        (580, [('a', 0), ('b', 40), ('c', 290), ('a', 500)]),
        (15, [('a', 0), ('b', 1), ('c', 7), ('a', 12)]),
        (1, [('a', 0)]),  # what begins at the same step leaves its last stage
    ],
)
def test_stages_of_augmentation_are_stretched(
    iters: int, stages: list[tuple[str, int]], capsys: pytest.CaptureFixture[str]
) -> None:
    cfg = Config.fromfile(config_path('rtdetr/rtdetr_r18vd_8xb2-72e_coco.py'))
    cfg.train_cfg.max_epochs = 58
    timetable = [('a', 0), ('b', 4), ('c', 29), ('a', 50)]
    late = dict(type='MatchingCostHook', begin=29)
    share = dict(type='GradientShareHook', rho=11, delta=1, default_weight=20, default_from=50)
    cfg.custom_hooks = [dict(type='AugmentationTimetableHook', timetable=timetable), late, share]
    set_iters(cfg, iters, evaluations=1)
    shared = dict(share, by_epoch=False, default_from=50 * iters // 58, interval=max(1, iters // 58))
    assert cfg.custom_hooks == [
        dict(type='AugmentationTimetableHook', timetable=stages, by_epoch=False),
        dict(type='MatchingCostHook', begin=29 * iters // 58, by_epoch=False),
        shared,
    ]
    assert 'counts epochs' not in capsys.readouterr().out


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'param_scheduler': [dict(type='ReduceOnPlateauLR', by_epoch=False)]}, 'how to stretch ReduceOnPlateauLR'),
        ({'param_scheduler': [dict(type='MultiStepLR', milestones=[8])]}, 'MultiStepLR counts epochs in a training'),
        ({'train_cfg': dict(type='IterBasedTrainLoop')}, 'neither max_epochs nor max_iters'),
    ],
    ids=['plateau', 'mixed', 'no length'],
)
def test_a_schedule_that_can_not_be_stretched(change: dict, message: str) -> None:
    cfg = quickstart_config()
    for key, value in change.items():
        cfg[key] = value
    with pytest.raises(InputError, match=message):
        set_iters(cfg, 100, evaluations=5)


def test_flattened_names_every_value() -> None:
    nested = {'a': {'b': [1, {'c': (2, 3)}]}, 'd': [], 'e': None, 'f': math.inf, 'g': math.nan}
    flat = {'a.b.0': 1, 'a.b.1.c.0': 2, 'a.b.1.c.1': 3, 'd': [], 'e': None, 'f': 'Infinity', 'g': 'NaN'}
    assert flattened(nested) == flat == json.loads(json.dumps(flat, allow_nan=False))


# --- a real one -------------------------------------------------------------------------------------------------------

CONFIG = """_base_ = [{base!r}]
model = dict(
    backbone=dict(_delete_=True, type='ResNet', depth=18, base_channels=8, out_indices=(1, 2, 3)),
    neck=dict(in_channels=[16, 32, 64], out_channels=32, num_heads=2, feedforward_channels=32),
    bbox_head=dict(
        in_channels=[32] * 3,
        embed_dims=32,
        query_selector=dict(num_queries={num_queries}),
        denoising=dict(num_denoising=4),
        decoder=dict(num_layers=1, num_heads=2, feedforward_channels=32),
    ),
    test_cfg=dict(max_per_img=10),
)
"""


@pytest.fixture(scope='module')
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp('data') / 'digits'
    return build_digits(root, num_train=8, num_val=4, image_size=128, progress=False)


@pytest.fixture(scope='module')
def configs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp('configs')
    paths = [folder / 'many.py', folder / 'few.py']
    for path, num_queries in zip(paths, (20, 10)):
        path.write_text(CONFIG.format(base=config_path(QUICKSTART), num_queries=num_queries))
    return paths


@pytest.fixture(scope='module')
def arguments(digits: Path, configs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two configs, two seeds, four steps, evaluations (and checkpoints) after two and four."""
    work_dir = tmp_path_factory.mktemp('work') / 'out'
    options = ['--work-dir', work_dir, '--data', digits, '--seeds', 0, 7, '--iters', 4, '--evaluations', 2]
    return [str(argument) for argument in (*configs, *options)]


@pytest.fixture(scope='module')
def interrupted(arguments: list[str]) -> Path:
    """The work folder of a comparison that is cut off in the third step of its fourth run; all in this process."""
    steps: list[None] = []

    def train(program: Path, *arguments: object, **_: object) -> int:
        launch.train([str(argument) for argument in arguments])
        return 0

    def cut_off() -> None:
        steps.append(None)
        if len(steps) == 3 * (4 + 1) + 3:  # asked before each step and at the end of a run
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, 'run_child', train)
        patch.setattr(recorder, '_require_parent', cut_off)
        with pytest.raises(TrainingStopped, match='SIGINT at once'):
            compare(TOOLS, arguments)
    return Path(arguments[arguments.index('--work-dir') + 1])


def test_a_comparison_goes_on_where_it_was_cut_off(interrupted: Path, arguments: list[str]) -> None:
    cut = interrupted / 'few' / 'seed_7'
    assert (cut / 'iter_2.pth').is_file() and read_result(cut) is None
    before = {path: path.read_bytes() for path in interrupted.glob('*/*/result.json')}
    reported = json.loads((interrupted / 'results.json').read_text())
    assert [(entry['config'], entry['seed']) for entry in reported] == [('many', 0), ('many', 7), ('few', 0)]

    done = subprocess.run(
        [sys.executable, str(TOOLS / 'compare.py'), *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count('finished before') == 3
    assert f'resuming from {cut / "iter_2.pth"}' in (cut / 'output.txt').read_text()
    assert all(path.read_bytes() == content for path, content in before.items())
    assert (interrupted / 'table.md').read_text() in done.stdout and (interrupted / 'curves.png').is_file()

    results = [RunResult.from_json(entry) for entry in json.loads((interrupted / 'results.json').read_text())]
    assert [(result.config, result.seed) for result in results] == [('many', 0), ('many', 7), ('few', 0), ('few', 7)]
    order = {(result.config, result.seed): result.data_order for result in results}
    assert order['many', 0] == order['few', 0] != order['many', 7] == order['few', 7]
    for result in results:
        assert (result.steps, result.batch_size, result.image_size) == (4, 4, (128, 128))
        assert [evaluation.step for evaluation in result.evaluations] == [2, 4]
        assert all(0 <= evaluation.ap <= 1 for evaluation in result.evaluations)
        assert [point.step for point in result.losses] == [1, 2, 3, 4]
        assert all(math.isfinite(point.loss) and point.loss > 0 for point in result.losses)
        windows = [
            (result.losses[0].loss + result.losses[1].loss) / 2,
            (result.losses[2].loss + result.losses[3].loss) / 2,
        ]
        assert [evaluation.loss for evaluation in result.evaluations] == pytest.approx(windows)
    assert len({result.losses for result in results}) == 4
    assert results[0].parameters == results[2].parameters and results[0].flops > results[2].flops


@pytest.mark.parametrize(
    ('changed', 'message'),
    [
        (
            ['--iters', '6'],
            r'many/seed_0 holds a run with other settings \(--iters: 4 there, 6 asked for now\); choose',
        ),
        (
            ['--cfg-options', 'train_dataloader.batch_size=2'],
            r'\(train_dataloader.batch_size: 4 there, 2 asked for now\); choose another --work-dir, or train it again',
        ),
    ],
    ids=['iters', 'options'],
)
@pytest.mark.usefixtures('interrupted')
def test_other_settings_are_refused(arguments: list[str], changed: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        compare(TOOLS, [*arguments, *changed])


def test_times_are_measured_in_turn_and_drawn(
    interrupted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    work_dir = shutil.copytree(interrupted, tmp_path / 'out')
    for folder in work_dir.glob('*/seed_7'):  # whichever test came first
        shutil.rmtree(folder)
    before = (work_dir / 'many' / 'seed_0' / 'result.json').read_bytes()
    compare(TOOLS, ['--report-only', '--times', '2', '--work-dir', str(work_dir)])
    heads, _, few, many = [
        row.strip('| ').split(' | ') for row in capsys.readouterr().out.splitlines() if row[:1] == '|'
    ]
    with open(work_dir / 'trade-off.csv', newline='') as file:
        drawn = {row['name']: row for row in csv.DictReader(file)}
    assert list(drawn) == ['few', 'many'] and (work_dir / 'trade-off.png').is_file()
    for row in (few, many):
        row_by_head, point = dict(zip(heads, row)), drawn[row[0]]
        step, image = float(row_by_head['time a step (s)']), float(row_by_head['time an image (ms)'])
        assert step > 0 and image > 0
        # three decimals are printed, of seconds
        assert float(point['training_minutes']) == pytest.approx(4 * step / 60, abs=4 * 5.1e-4 / 60)
        assert float(point['image_ms']) == pytest.approx(image, abs=0.051)  # one decimal is printed
    assert (work_dir / 'many' / 'seed_0' / 'result.json').read_bytes() == before
    timed = (work_dir / 'table.md').read_bytes()
    compare(TOOLS, ['--report-only', '--work-dir', str(work_dir)])  # the times that are there count
    assert (work_dir / 'table.md').read_bytes() == timed
    config = work_dir / 'few' / 'seed_0' / 'config.py'
    config.write_text(config.read_text().replace('train.json', 'gone.json'))
    with pytest.raises(InputError, match=r'gone.json'):
        compare(TOOLS, ['--report-only', '--times', '2', '--work-dir', str(work_dir)])


def test_restart_sets_runs_of_other_settings_aside(
    interrupted: Path, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, 'run_child', lambda *_, **__: 1)  # trains nothing
    work_dir = shutil.copytree(interrupted, tmp_path / 'out')
    again = [str(work_dir) if argument == str(interrupted) else argument for argument in arguments]
    for folder in work_dir.glob('*/seed_*'):  # all as if they were finished, whichever test came first
        if read_result(folder) is None:
            shutil.copy(work_dir / 'many' / 'seed_0' / 'result.json', folder)
    compare(TOOLS, [*again, '--restart'])  # of the same settings, nothing is trained anew
    assert not list(work_dir.glob('*/before-*')) and list((work_dir / 'few' / 'seed_7').glob('iter_*.pth'))
    with pytest.raises(InputError, match=r'many, seed 0 \(1 of 4\): the training ended'):
        compare(TOOLS, [*again, '--iters', '6', '--restart'])
    for name in ('many', 'few'):
        assert len(list((work_dir / name).glob('before-*_seed_[07]'))) == 2
    assert read_result(work_dir / 'many' / 'seed_0') is None
    (aside,) = (work_dir / 'many').glob('before-*_seed_0')
    assert read_result(aside) == read_result(interrupted / 'many' / 'seed_0')


def test_a_run_that_fails_is_named_with_its_log(
    configs: list[Path], digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, 'run_child', lambda *_, **__: 1)
    with pytest.raises(InputError, match=r'many, seed 0 \(1 of 1\): the training ended with status 1.*output.txt'):
        compare(TOOLS, [str(configs[0]), '--work-dir', str(tmp_path), '--data', str(digits), '--iters', '4'])


def test_a_run_ends_with_the_comparison_that_started_it(monkeypatch: pytest.MonkeyPatch) -> None:
    hook = recorder.RunRecorder('plain', 0)
    for value in (None, str(os.getppid())):
        monkeypatch.delenv(recorder.PARENT_VARIABLE, raising=False)
        if value is not None:
            monkeypatch.setenv(recorder.PARENT_VARIABLE, value)
        hook.before_train_iter(None, 0)
    monkeypatch.setenv(recorder.PARENT_VARIABLE, '1000000000')
    with pytest.raises(SystemExit, match='the comparison that started this run has ended'):
        hook.before_train_iter(None, 0)


def test_data_replaces_sets_evaluators_and_class_counts(digits: Path) -> None:
    coco = find_coco_set(digits)
    cfg = settings.changed_config(
        Path(config_path('rtdetr/rtdetr_r18vd_8xb2-72e_coco.py')),
        settings.Changes(Wishes(data=coco, size=320, batch=8), options={'model.backbone.num_classes': 1000}),
    )
    assert cfg.model.bbox_head.num_classes == 10
    assert cfg.train_dataloader.batch_size == 8 and cfg.auto_scale_lr.enable
    assert [step.scale for step in cfg.val_dataloader.dataset.pipeline if 'scale' in step] == [(320, 320)]
    for split, folder in (('train', 'train'), ('val', 'val'), ('test', 'val')):
        dataset = cfg[f'{split}_dataloader'].dataset
        assert dataset.ann_file == str(digits / 'annotations' / f'{folder}.json') and dataset.data_root == ''
        assert dataset.data_prefix.img == str(digits / folder)
        assert tuple(dataset.metainfo.classes) == tuple('0123456789')
    assert cfg.val_evaluator.ann_file == cfg.test_evaluator.ann_file == str(digits / 'annotations' / 'val.json')


def test_weights_none_takes_out_all_that_a_config_begins_with() -> None:
    path = Path(config_path('rtdetrv2_r18vd_dsp'))
    for random_weights in (False, True):
        cfg = settings.changed_config(path, settings.Changes(random_weights=random_weights))
        begins = [cfg.get('load_from'), cfg.model.get('init_cfg'), cfg.model.backbone.get('init_cfg')]
        assert (begins == [None] * 3) == random_weights
    assert parser().parse_args([str(path), '--work-dir', 'x', '--weights', 'none']).weights == 'none'


def test_data_of_a_config_that_tests_nothing(digits: Path, tmp_path: Path) -> None:
    path = tmp_path / 'own.py'
    none = '\n'.join(f'test_{kind} = None' for kind in ('dataloader', 'evaluator', 'cfg'))
    path.write_text(f'_base_ = {config_path(QUICKSTART)!r}\n{none}\n')
    cfg = settings.changed_config(path, settings.Changes(Wishes(data=find_coco_set(digits))))
    assert cfg.train_dataloader.dataset.ann_file == str(digits / 'annotations' / 'train.json')


def test_the_digits_are_made_where_they_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Path] = []
    monkeypatch.setattr(settings, 'build_digits', made.append)
    monkeypatch.chdir(tmp_path)
    settings.build_missing_digits(Config.fromfile(config_path('rtdetr/rtdetr_r18vd_8xb2-72e_coco.py')))
    assert made == []
    settings.build_missing_digits(quickstart_config())
    assert made == [Path('data/digits')]
    made[0].mkdir(parents=True)
    settings.build_missing_digits(quickstart_config())
    assert len(made) == 1


def test_a_work_folders_config_is_called_as_the_folder(digits: Path, tmp_path: Path) -> None:
    paths = [tmp_path / name / 'config.py' for name in ('first', 'second')]
    for path in paths:
        path.parent.mkdir()
        path.write_text(f'_base_ = [{config_path(QUICKSTART)!r}]\n')
    arguments = parser().parse_args([*map(str, paths), '--work-dir', str(tmp_path / 'out'), '--data', str(digits)])
    runs = command.prepare(arguments, tmp_path / 'out')
    assert [(run.name, run.folder) for run in runs] == [
        (name, tmp_path / 'out' / name / 'seed_0') for name in ('first', 'second')
    ]


def test_times_that_are_none_are_refused(tmp_path: Path) -> None:
    assert kept(tmp_path, ['plain']) is None
    (tmp_path / 'times.json').write_text('{"plain": {"step": 0.2, "image": 0.03}}')
    assert kept(tmp_path, ['plain']) == {'plain': Times(0.2, 0.03)} and kept(tmp_path, ['plain', 'other']) is None
    result = tmp_path / 'plain' / 'seed_0' / 'result.json'
    result.parent.mkdir(parents=True)
    result.touch()
    os.utime(result, (time.time() + 60,) * 2)  # trained since
    assert kept(tmp_path, ['plain']) is None
    (tmp_path / 'times.json').write_text('[1]')
    with pytest.raises(InputError, match=r'times.json holds no times of `iouquery compare` \(.*\); remove it'):
        kept(tmp_path, ['plain'])


def test_points_of_a_trade_off_by_hand() -> None:
    runs = [with_ap(RESULT, 0.4), with_ap(RESULT, 0.5)]
    (point,) = points({'plain': runs}, {'plain': Times(step=0.2, image=0.03)})
    assert point == Point('plain', pytest.approx(2.0), pytest.approx(30), pytest.approx(45), pytest.approx(5 * 2**0.5))
    assert points({'plain': runs[:1]}, {'plain': Times(0.2, 0.03)})[0].ap_deviation is None


@pytest.mark.parametrize(
    ('costs', 'aps', 'expected'),
    [
        ([3, 1, 2], [30, 10, 20], [1, 2, 0]),
        ([1, 2, 3], [30, 20, 30], [0]),  # the last is as good, and costs more
        ([1, 1, 2], [10, 20, 15], [1]),
        ([], [], []),
    ],
)
def test_the_pareto_front(costs: list[float], aps: list[float], expected: list[int]) -> None:
    assert front(costs, aps) == expected


# --- what can be wrong ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ([], 'no config to compare'),
        (['quickstart/nothing.py'], "no shipped config 'quickstart/nothing.py'.*close to it|`iouquery configs` lists"),
        ([QUICKSTART, f'elsewhere/{Path(QUICKSTART).name}'], '2 configs are called rtdetr_r18vd_digits'),
        ([QUICKSTART, '--times', '0'], '--times 0: name how often to time each, at least once'),
        ([QUICKSTART, '--seeds', '1', '2', '1'], '--seeds: 1 is given twice'),
        ([QUICKSTART, '--seeds', '-1'], '--seeds: -1 is negative'),
        ([QUICKSTART, '--iters', '-5'], '--iters -5: there must be at least one step'),
        ([QUICKSTART, '--iters', '3', '--evaluations', '4'], r'--evaluations must lie in \[1, 3\], .*, got 4'),
        ([QUICKSTART, '--iters', '3', '--evaluations', '0'], r'--evaluations must lie in \[1, 3\], .*, got 0'),
        ([QUICKSTART, '--evaluations', '2'], '--evaluations needs --iters'),
        ([QUICKSTART, '--data', '/nowhere'], 'no folder or file /nowhere'),
        ([QUICKSTART, '--cfg-options', 'val_evaluator.metric=proposal'], "reads COCO's AP"),
        (['rtdetr/../_base_/default_runtime.py'], 'needs train_cfg, val_dataloader and val_evaluator'),
        ([QUICKSTART, 'rtdetr/rtdetr_r18vd_8xb2-72e_coco.py'], 'have different data .train: data/digits.*give --data'),
    ],
)
def test_bad_input_is_said_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        compare(TOOLS, [*arguments, '--work-dir', 'out'])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('restart', [[], ['--restart']])
def test_other_data_than_the_folders_is_refused_with_the_commands_own_option(
    configs: list[Path], tmp_path: Path, restart: list[str]
) -> None:
    """Its runs would pass for runs on the new data, as their settings name the same files."""
    for name in ('one', 'other'):
        yolo_set(tmp_path / name, {f'{number}.jpg': '0 0.5 0.5 0.5 0.5\n' for number in range(10)})
    read_data(tmp_path / 'one', out=tmp_path / 'out' / 'annotations')
    arguments = [str(configs[0]), '--work-dir', str(tmp_path / 'out'), '--data', str(tmp_path / 'other'), *restart]
    with pytest.raises(InputError, match=r'annotations holds what .* another set, .*one; name another .* --work-dir$'):
        compare(TOOLS, arguments)


def test_a_set_that_grew_is_refused_before_it_is_written(
    configs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs on it would stand beside runs on what it was."""
    root, out = tmp_path / 'set', tmp_path / 'out'

    def train(_: Path, config: Path, *__: object, **___: object) -> int:
        config.with_name('iter_2.pth').touch()
        return 1

    def attempt(number: int, *more: str) -> str:
        yolo_set(root, {f'{i}.jpg': '0 0.5 0.5 0.5 0.5\n' for i in range(number)})
        with pytest.raises(InputError) as refused:
            compare(TOOLS, [str(configs[0]), '--work-dir', str(out), '--data', str(root), '--iters', '4', *more])
        return str(refused.value)

    def written() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (out / 'annotations').glob('*.json')}

    monkeypatch.setattr(command, 'run_child', train)
    assert 'the training ended with status 1' in attempt(6)
    before = written()
    for _ in range(2):
        message = attempt(9)
        assert f'{out / "many" / "seed_0"} holds a run on {root} as it was before it changed' in message
        assert '(9 images now, 6 then)' in message and '--restart' in message and written() == before
    assert 'the training ended with status 1' in attempt(9, '--restart') and written() != before
    assert len([*(out / 'many').glob('before-*_seed_0')]) == 1
    assert 'the training ended with status 1' in attempt(9)
    annotations = out / 'annotations' / 'train.json'
    read_data(yolo_set(root, {f'{i}.jpg': '0 0.5 0.5 0.5 0.5\n' for i in range(12)}), out=out / 'annotations')
    assert str(annotations) in attempt(12)  # converted by somebody else
    (out / 'many' / 'seed_0' / 'iter_2.pth').unlink()
    assert 'the training ended with status 1' in attempt(12)  # nothing was trained on the set as it was


def test_a_work_dir_that_is_a_file_is_refused(configs: list[Path], digits: Path, tmp_path: Path) -> None:
    (tmp_path / 'file').write_text('of a person')
    arguments = [str(configs[0]), '--work-dir', str(tmp_path / 'file'), '--data', str(digits), '--iters', '4']
    with pytest.raises(
        InputError, match=f'cannot write to the folder {tmp_path / "file"}: .*; name another with --work-dir'
    ):
        compare(TOOLS, arguments)
    assert (tmp_path / 'file').read_text() == 'of a person'


def test_a_model_that_can_not_be_built_is_said_before_the_first_training(
    configs: list[Path], digits: Path, tmp_path: Path
) -> None:
    wrong = tmp_path / 'wrong.py'
    wrong.write_text(configs[0].read_text() + "model['neck']['typo'] = 1\n")
    arguments = [str(configs[0]), str(wrong), '--work-dir', str(tmp_path / 'out'), '--data', str(digits)]
    with pytest.raises(InputError, match=re.escape(f'{wrong}: the model cannot be built: ') + '.*typo'):
        compare(TOOLS, arguments)
    assert not (tmp_path / 'out').exists()
