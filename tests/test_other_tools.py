"""mmdet's own tools on our configs and checkpoints, by ``python -m mmdet_iouquery.run``: each row of other-tools.md."""

from __future__ import annotations

import json
import math
import pickle
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import pytest
import torch
from helpers import build_detector
from mmdet.apis import init_detector
from mmengine.config import Config
from mmengine.logging import MessageHub
from runs import SMALL_MODEL

from mmdet_iouquery import compat, config_path, find_coco_set, run
from mmdet_iouquery.apps.cost import count_flops
from mmdet_iouquery.apps.doctor import command as doctor
from mmdet_iouquery.apps.quickstart.command import config_text
from mmdet_iouquery.apps.quickstart.digits import build_digits
from mmdet_iouquery.errors import InputError

ROOT = Path(__file__).resolve().parents[1]
TRAIN, VAL, STEPS = 6, 4, 3
TOOLS = run.mmdet_tools()
Tool = Callable[..., str]


def needs(name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(name not in TOOLS, reason=f'the mmdet installed here came without {name}')


@pytest.fixture(scope='module')
def _as_main() -> Iterator[pytest.MonkeyPatch]:
    """What a tool changes for the rest of its process, put back."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('MPLBACKEND', 'Agg')
        patch.setenv('MMDET_IOUQUERY_RUN', '')
        patch.setenv('LOCAL_RANK', '0')
        patch.setattr(sys, 'argv', sys.argv)
        patch.setattr(sys, 'path', [*sys.path])
        patch.setitem(sys.modules, '__main__', sys.modules['__main__'])
        yield patch


@pytest.fixture
def tool(_as_main: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Tool:
    """Runs a tool in this process; what it printed."""

    def started(*arguments: object) -> str:
        MessageHub._instance_dict.clear()
        capfd.readouterr()
        assert run.main([str(argument) for argument in arguments]) == 0
        return capfd.readouterr().out

    return started


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits, and ``config.py``, a config of the quickstart with a small model."""
    folder = tmp_path_factory.mktemp('tools')
    data = build_digits(folder / 'digits', num_train=TRAIN, num_val=VAL, image_size=96, progress=False)
    text = config_text(find_coco_set(data), iters=STEPS, image_size=64)
    (folder / 'config.py').write_text(text + SMALL_MODEL + "default_hooks['logger'] = dict(interval=1)\n")
    return folder


@pytest.fixture(scope='module')
def checkpoint(folder: Path, _as_main: pytest.MonkeyPatch) -> Path:
    """Written by mmdet's train.py."""
    run.main(['train', str(folder / 'config.py'), '--work-dir', str(folder / 'trained')])
    return folder / 'trained' / f'iter_{STEPS}.pth'


@pytest.fixture(scope='module')
def predictions(folder: Path, checkpoint: Path, _as_main: pytest.MonkeyPatch) -> Path:
    """Written by mmdet's test.py."""
    path = folder / 'predictions.pkl'
    options = ['--work-dir', str(folder / 'tested'), '--out', str(path)]
    run.main(['test', str(folder / 'config.py'), str(checkpoint), *options])
    return path


def metrics_of(work_dir: Path) -> dict[str, float]:
    (path,) = work_dir.glob('*/*.json')
    return json.loads(path.read_text())


@needs('train.py')
def test_train(folder: Path, checkpoint: Path) -> None:
    meta = torch.load(checkpoint, weights_only=True)['meta']
    assert meta['iter'] == STEPS and meta['dataset_meta']['classes'] == tuple('0123456789')
    assert doctor.main(['checkpoint', str(checkpoint)]) == 0


@needs('test.py')
def test_test(folder: Path, predictions: Path, tool: Tool, checkpoint: Path) -> None:
    """Its AP is that of the validation which ended the training; it draws where it is asked to."""
    logged = [json.loads(line) for line in next((folder / 'trained').glob('*/vis_data/scalars.json')).open()]
    tested = metrics_of(folder / 'tested')
    assert tested['coco/bbox_mAP_50'] == logged[-1]['coco/bbox_mAP_50']
    results = pickle.loads(predictions.read_bytes())
    assert len(results) == VAL and all(len(result['pred_instances']['scores']) == 50 for result in results)
    drawn = folder / 'drawn'
    tool('test.py', folder / 'config.py', checkpoint, '--work-dir', drawn, '--show-dir', 'images')
    assert len([*drawn.glob('*/images/*.jpg')]) == VAL


@needs('analysis_tools/eval_metric.py')
def test_eval_metric(folder: Path, predictions: Path, tool: Tool) -> None:
    """The same AP again, from the file."""
    output = tool('eval_metric', folder / 'config.py', predictions)
    expected = metrics_of(folder / 'tested')
    for name in ('bbox_mAP', 'bbox_mAP_50'):
        assert f"'coco/{name}': {expected[f'coco/{name}']}" in output


@needs('analysis_tools/browse_dataset.py')
@pytest.mark.parametrize(('name', 'size'), [('config.py', 64), ('rtdetr/rtdetr_r18vd_8xb2-72e_coco.py', 640)])
def test_browse_dataset(name: str, size: int, folder: Path, tool: Tool) -> None:
    """Every training image as it comes out of the pipeline, COCO's augmentation too."""
    config = folder / name if name == 'config.py' else config_path(name)
    out = folder / f'browsed {size}'
    tool('browse_dataset', config, '--not-show', '--output-dir', out, '--cfg-options', *of_digits('train', folder))
    shapes = [cv2.imread(str(path)).shape for path in out.glob('*.jpg')]
    assert shapes == [(size, size, 3)] * TRAIN


def of_digits(split: str, folder: Path) -> list[str]:
    """Overrides by which a shipped config reads one part of the digits."""
    key = f'{split}_dataloader'
    return [
        f'{key}.dataset.data_root={folder}/digits/',
        f'{key}.dataset.ann_file=annotations/{split}.json',
        f'{key}.dataset.data_prefix.img={split}/',
        f'{key}.dataset.metainfo.classes={",".join("0123456789")}',
        f'{key}.num_workers=0',
        f'{key}.persistent_workers=False',
    ]


@needs('analysis_tools/confusion_matrix.py')
def test_confusion_matrix(folder: Path, predictions: Path, tool: Tool) -> None:
    tool('confusion_matrix', folder / 'config.py', predictions, folder / 'confusion')
    height, width = cv2.imread(str(folder / 'confusion' / 'confusion_matrix.png')).shape[:2]
    assert width > height > 500


@needs('analysis_tools/analyze_results.py')
def test_analyze_results(folder: Path, predictions: Path, tool: Tool) -> None:
    """It reads images by the training pipeline's loading steps, and parts them into the best and the worst."""
    tool('analyze_results', folder / 'config.py', predictions, folder / 'analyzed', '--topk', 2)
    parted = [{path.name for path in (folder / 'analyzed' / kind).glob('*.jpg')} for kind in ('good', 'bad')]
    assert [len(part) for part in parted] == [2, 2] and not parted[0] & parted[1]


@needs('analysis_tools/get_flops.py')
def test_get_flops(folder: Path, tool: Tool) -> None:
    """mmengine counts a multiplication with its addition as one, and of attention the projections alone."""
    config = config_path('rtdetr/rtdetr_r18vd_8xb2-72e_coco.py')
    output = tool('get_flops', config, '--num-images', 1, '--cfg-options', *of_digits('val', folder))
    flops, params = (float(re.search(rf'{name}: ([\d.]+)', output)[1]) for name in ('Flops', 'Params'))  # type: ignore[index]
    with torch.device('meta'):
        model = build_detector('rtdetr/rtdetr_r18vd_8xb2-72e_coco.py').eval()
        images = torch.empty(1, 3, 640, 640)
    ours = count_flops(lambda: model.bbox_head.forward(model.extract_feat(images))) / 1e9
    # it prints M of three decimals
    assert params == pytest.approx(sum(parameter.numel() for parameter in model.parameters()) / 1e6, abs=1e-3)
    # the table's 60; norms and interpolation are counted there and not here, attention here and not there
    assert 2 * flops == pytest.approx(ours, rel=0.01) and math.floor(2 * flops) == 59


@needs('analysis_tools/analyze_logs.py')
def test_analyze_logs(folder: Path, checkpoint: Path, tool: Tool) -> None:
    text = TOOLS['analysis_tools/analyze_logs.py'].read_text(encoding='utf-8')
    if 'import seaborn' in text and compat.find_module('seaborn') is None:
        pytest.skip('this analyze_logs.py imports seaborn, which is not installed')
    (log,) = (folder / 'trained').glob('*/vis_data/[0-9]*.json')
    # the one that does without seaborn has kept the name of a style of seaborn's as its default
    style = [] if 'import seaborn' in text else ['--style', 'default']
    tool('analyze_logs', 'plot_curve', log, '--keys', 'loss', '--out', folder / 'loss.png', *style)
    assert cv2.imread(str(folder / 'loss.png')) is not None
    times = [line['time'] for line in map(json.loads, log.open()) if 'lr' in line]
    output = tool('analyze_logs', 'cal_train_time', log)
    assert len(times) == STEPS and f'average iter time: {sum(times[1:]) / (STEPS - 1):.4f}' in output


@needs('model_converters/publish_model.py')
def test_publish_model(folder: Path, checkpoint: Path, tool: Tool) -> None:
    """Weights and meta alone, under a name with a hash, in a file that the doctor reads and a detector loads."""
    tool('publish_model', checkpoint, folder / 'published.pth')
    deadline = time.monotonic() + 60
    while not (published := [*folder.glob('published-*.pth')]) or (folder / 'published.pth').exists():
        assert time.monotonic() < deadline, 'it leaves the renaming to a process that it does not wait for'
        time.sleep(0.1)
    (path,) = published
    content, original = torch.load(path, weights_only=True), torch.load(checkpoint, weights_only=True)
    assert content.keys() == {'meta', 'state_dict'}
    assert all(torch.equal(content['state_dict'][key], value) for key, value in original['state_dict'].items())
    assert doctor.main(['checkpoint', str(path)]) == 0
    assert init_detector(str(folder / 'config.py'), str(path), device='cpu').dataset_meta['classes'][3] == '3'


@needs('misc/print_config.py')
def test_print_config(tool: Tool, tmp_path: Path) -> None:
    """What it prints is a config, equal to the one that was read."""
    name = config_path('rtdetr/rtdetr_r50vd_8xb2-72e_coco.py')
    tool('print_config', name, '--save-path', tmp_path / 'printed.py')
    assert Config.fromfile(tmp_path / 'printed.py').to_dict() == Config.fromfile(name).to_dict()


def test_image_demo(folder: Path, checkpoint: Path, tool: Tool) -> None:
    """In no wheel; from a source tree of mmdet, where one is here."""
    trees = (ROOT / 'build' / 'mmdet-tests').glob('*/*/demo/image_demo.py')
    path = next(iter([*filter(None, [TOOLS.get('demo/image_demo.py')]), *trees]), None)
    if path is None:
        pytest.skip('wheels of mmdet carry no demo/, and there is no source tree of it in build/mmdet-tests')
    image = next((folder / 'digits' / 'val').glob('*.jpg'))
    tool(path, image, folder / 'config.py', '--weights', checkpoint, '--device', 'cpu', '--out-dir', folder / 'demo')
    detections = json.loads((folder / 'demo' / 'preds' / f'{image.stem}.json').read_text())
    assert len(detections['scores']) == 50 and (folder / 'demo' / 'vis' / image.name).is_file()


# --- python -m mmdet_iouquery.run -------------------------------------------------------------------------------------

PROGRAM = """
import mmdet, multiprocessing, os, sys

def work(x):
    return x + 1, 'mmdet_iouquery' in sys.modules, sys.argv[1:]

if __name__ == '__main__':
    with multiprocessing.get_context('spawn').Pool(1) as pool:
        print('found', pool.apply(work, (41,)), os.path.basename(__file__), sys.argv[1:], os.path.basename(sys.path[0]))
    sys.exit(7)
"""


def test_a_program_that_imports_mmdet_first_runs_and_so_do_processes_it_spawns(tmp_path: Path) -> None:
    """Its arguments, folder and exit status are what they would be by itself."""
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine' / 'program.py').write_text(PROGRAM)
    command = [sys.executable, '-m', 'mmdet_iouquery.run', str(tmp_path / 'mine' / 'program.py'), '--mine', '1']
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert result.returncode == 7, result.stderr
    assert "found (42, True, ['--mine', '1']) program.py ['--mine', '1'] mine\n" in result.stdout


def tools_in(folder: Path, *names: str) -> dict[str, Path]:
    for name in names:
        path = folder / '.mim' / 'tools' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('')
    return run.mmdet_tools(folder)


def test_tools_go_by_path_or_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools = tools_in(tmp_path, 'test.py', 'analysis/browse.py', 'analysis/mot/browse.py', 'a/same.py', 'b/same.py')
    assert set(tools) == {'test.py', 'analysis/browse.py', 'analysis/mot/browse.py', 'a/same.py', 'b/same.py'}
    for name in ('browse', 'browse.py', 'analysis/browse', 'analysis/browse.py'):
        assert run.find_tool(name, tools) == tools['analysis/browse.py'], 'the one in the fewest folders'
    assert run.find_tool('mot/browse', {'mot/browse.py': tmp_path}) == tmp_path
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'test.py').write_text('')
    assert run.find_tool('test.py', tools) == tmp_path / 'test.py', 'a file comes before a name'
    assert run.find_tool('test', tools) == tools['test.py']
    with pytest.raises(InputError, match="'same' may be any of a/same, b/same"):
        run.find_tool('same', tools)


def test_an_unknown_tool_is_refused_with_the_nearest_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tools = tools_in(tmp_path, 'analysis_tools/get_flops.py', 'train.py')
    with pytest.raises(InputError, match=r'no file get_flop, .*; close to it: analysis_tools/get_flops$'):
        run.find_tool('get_flop', tools)
    with pytest.raises(InputError, match=r'no file borwse, .*; close to it: analysis_tools/browse_dataset$'):
        run.find_tool('borwse', tools_in(tmp_path, 'analysis_tools/browse_dataset.py', 'train.py'))
    with pytest.raises(InputError, match='came without tools; give a path'):
        run.find_tool('train', {})
    assert run.main(['nothing like it']) == 2
    output = capsys.readouterr()
    assert output.err.startswith('error: there is no file nothing like it') and output.err.count('\n') == 1


def test_a_source_tree_has_its_tools_and_demos_beside_the_package(tmp_path: Path) -> None:
    for name in ('setup.py', 'tools/train.py', 'demo/image_demo.py', 'mmdet/__init__.py'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text('')
    assert set(run.mmdet_tools(tmp_path / 'mmdet')) == {'train.py', 'demo/image_demo.py'}
    (tmp_path / 'setup.py').unlink()  # as in site-packages, where a folder of that name is somebody else's
    assert run.mmdet_tools(tmp_path / 'mmdet') == {}


def test_without_arguments_it_lists_what_it_finds(capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main([]) == 0
    assert [line.strip() for line in capsys.readouterr().out.splitlines()[3:]] == ([*TOOLS] or ['(none)'])


def test_every_test_that_the_page_names_is_there() -> None:
    page = (ROOT / 'docs' / 'other-tools.md').read_text(encoding='utf-8')
    named = set(re.findall(r'`(test_\w+)`', page))
    texts = [path.read_text(encoding='utf-8') for path in (ROOT / 'tests').rglob('test_*.py')]
    there = {name for text in texts for name in re.findall(r'^def (test_\w+)\(', text, re.MULTILINE)}
    assert len(named) > 10 and named <= there


def test_a_shipped_configs_name_becomes_its_path(tmp_path: Path) -> None:
    program, name = tmp_path / 'program.py', 'rtdetr/rtdetr_r18vd_8xb2-72e_coco.py'
    program.write_text('import sys; print(*sys.argv[1:], sep="\\n")')
    command = [sys.executable, '-m', 'mmdet_iouquery.run', str(program), name, 'none.py', '--out', str(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [config_path(name), 'none.py', '--out', str(program)]
