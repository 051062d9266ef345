"""The tools in two processes, as a launcher starts them: training, a process that dies, evaluation, sharding."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from mmengine.config import Config
from runs import SMALL_MODEL

from mmdet_iouquery import find_coco_set
from mmdet_iouquery.apps.quickstart.command import config_text
from mmdet_iouquery.apps.quickstart.digits import build_digits
from mmdet_iouquery.engine.launch import test as evaluate

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
STEPS, DIES_AT, NUM_IMAGES = 4, 3, 5

HOOKS = '''
import os, signal
from hashlib import sha256
from pathlib import Path
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

@HOOKS.register_module()
class LeaveDigests(Hook):
    """Of the parameters after the last step, from every process."""
    def after_train(self, runner):
        weights = dict(runner.model.module.named_parameters())
        digests = {name: sha256(w.detach().numpy().tobytes()).hexdigest() for name, w in weights.items()}
        torch.save(digests, Path(runner.work_dir) / f'digests_{runner.rank}.pt')

@HOOKS.register_module()
class SeedSteps(Hook):
    """Every step draws the same, whatever was drawn before."""
    def before_train_iter(self, runner, batch_idx, data_batch=None):
        torch.manual_seed(2 * runner.iter + runner.rank)

@HOOKS.register_module()
class DieOnce(Hook):
    """Kill the second process after a step; not when torchrun has started it again."""
    def __init__(self, step):
        self.step = step
    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        again = int(os.environ['TORCHELASTIC_RESTART_COUNT'])
        if runner.rank == 1 and runner.iter + 1 == self.step and not again:
            os.kill(os.getpid(), signal.SIGKILL)
'''

SEVERAL = """
import sys
import mmdet_iouquery
import torch.distributed as dist
from mmdet_iouquery.engine.launch import run_tool, test, train

def main():
    folder, checkpoint = sys.argv[1:]
    common = ['--launcher', 'pytorch', '--work-dir']
    for name in ('five', 'one'):
        test([f'{folder}/{name}.py', checkpoint, *common, f'{folder}/{name}', '--out', f'{folder}/two_{name}'])
    assert dist.get_world_size() == 2 and dist.get_backend() == 'gloo'
    for name in ('whole', 'sharded', 'dead'):
        train([f'{folder}/{name}.py', *common, f'{folder}/{name}'])

raise SystemExit(run_tool(main))
"""

SGD = """
optim_wrapper = dict(optimizer=dict(_delete_=True, type='SGD', lr=1e-3), clip_grad=None)
default_hooks = dict(die=dict(step=99), seed=dict(type='SeedSteps'))
load_from = {checkpoint!r}
train_cfg = dict(max_iters=2)
"""


class Folder(NamedTuple):
    """Where the tests' config is, and what a module of hooks beside it needs to be found."""

    path: Path
    config: Path
    environment: dict[str, str]


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    path = tmp_path_factory.mktemp('two processes')  # with a blank
    data = build_digits(path / 'digits', num_train=8, num_val=NUM_IMAGES, image_size=128, progress=False)
    config = path / 'my config.py'
    config.write_text(
        config_text(find_coco_set(data), iters=STEPS, image_size=64)
        + SMALL_MODEL
        + "custom_imports = dict(imports=['mmdet_iouquery', 'hooks_of_this_test'], allow_failed_imports=False)\n"
        + f'train_cfg.update(val_interval={STEPS + 1})\n'
        # alone in its batch, an image's numbers are the same to the last bit whoever has the others
        + 'val_dataloader.update(batch_size=1)\n'
        + 'default_hooks.update(\n'
        + f"    logger=dict(interval=1), leave=dict(type='LeaveDigests'), die=dict(type='DieOnce', step={DIES_AT})\n)\n"
        + 'default_hooks["checkpoint"].update(interval=2)\n'
    )
    (path / 'hooks_of_this_test.py').write_text(HOOKS)
    environment = {
        **os.environ,
        'PYTHON': sys.executable,
        'OMP_NUM_THREADS': '1',
        'PYTHONPATH': f'{ROOT}:{TESTS}:{path}',
    }
    for name in ('NNODES', 'NODE_RANK', 'PORT', 'MASTER_ADDR', 'MAX_RESTARTS'):
        environment.pop(name, None)
    return Folder(path, config, environment)


def start(command: list[object], folder: Folder, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run to the end; 5 minutes stand for "it hangs"."""
    return subprocess.run(
        [str(argument) for argument in command],
        env={**folder.environment, **environment},
        cwd=folder.path,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.fixture(scope='module')
def restarted(folder: Folder) -> subprocess.CompletedProcess[str]:
    """A training whose second process was killed once."""
    command = [ROOT / 'tools' / 'dist_train.sh', folder.config, 2, '--work-dir', folder.path / 'run', '--resume']
    done = start(command, folder, MAX_RESTARTS='1')
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def test_a_training_that_is_started_again_goes_on_from_its_checkpoint(
    restarted: subprocess.CompletedProcess[str], folder: Folder
) -> None:
    """To the end; the first process alone logs."""
    assert f'resuming from {folder.path}/run/iter_2.pth' in restarted.stdout
    steps = [int(step) for step in re.findall(r'Iter\(train\) \[ *(\d+)/', restarted.stdout)]
    # the step after which the other died may have been logged before the end
    assert steps in ([1, 2, 3, 4], [1, 2, 3, 3, 4])
    assert restarted.stdout.count('note: torch sees no CUDA device') == 2  # once in each start
    assert not list(folder.path.glob('run/*/*rank1*'))


def test_weights_are_the_same_in_both_processes_and_in_the_checkpoint(
    restarted: subprocess.CompletedProcess[str], folder: Folder
) -> None:
    first, second = (torch.load(folder.path / 'run' / f'digests_{rank}.pt') for rank in (0, 1))
    assert first == second and len(first) > 100
    weights = torch.load(folder.path / 'run' / f'iter_{STEPS}.pth', weights_only=False)['state_dict']
    assert {name: sha256(weights[name].numpy().tobytes()).hexdigest() for name in first} == first


def write_several(folder: Folder) -> None:
    """The configs of what two processes do in one start, and the program."""
    path = folder.path
    content = json.loads((path / 'digits' / 'annotations' / 'val.json').read_text())
    content['images'] = content['images'][:1]
    content['annotations'] = [
        annotation for annotation in content['annotations'] if annotation['image_id'] == content['images'][0]['id']
    ]
    (path / 'one.json').write_text(json.dumps(content))
    single = f'one_image = {str(path / "one.json")!r}\ntest_dataloader = dict(dataset=dict(ann_file=one_image))\n'
    single += "metric = dict(type='CocoMetric', ann_file=one_image, metric='bbox')\n"
    single += "test_evaluator = [metric, dict(type='QuerySelectionMetric')]\n"
    sgd = SGD.replace('{checkpoint!r}', repr(str(path / 'run' / f'iter_{STEPS}.pth')))
    dead = 'default_hooks = dict(die=dict(step=1))\n'
    strategy = "runner_type = 'FlexibleRunner'\nstrategy = dict(type='FSDPStrategy')\n"
    for name, text in {'five': '', 'one': single, 'whole': sgd, 'sharded': sgd + strategy, 'dead': dead}.items():
        (path / f'{name}.py').write_text(f'_base_ = [{str(folder.config)!r}]\n{text}')
    (path / 'several.py').write_text(SEVERAL)


class Several(NamedTuple):
    """Where everything is, and how it ended."""

    path: Path
    done: subprocess.CompletedProcess[str]


@pytest.fixture(scope='module')
def several(restarted: subprocess.CompletedProcess[str], folder: Folder) -> Several:
    """Evaluation of all images and of one, and three trainings; in the last of them one of the two processes dies."""
    write_several(folder)
    arguments = [folder.path, folder.path / 'run' / f'iter_{STEPS}.pth']
    done = start([ROOT / 'tools' / 'torchrun.sh', 2, 'several.py', *arguments], folder)
    assert (folder.path / 'sharded' / 'iter_2.pth').is_file(), done.stderr[-3000:]
    return Several(folder.path, done)


def test_a_process_that_dies_ends_the_others(several: Several) -> None:
    """With a status that says so, and a report that names the process."""
    assert several.done.returncode != 0
    report = r'rank\s*: 1 \(local_rank: 1\)\s*exitcode\s*: -9 .*SIGKILL'
    assert re.search(report, several.done.stderr), several.done.stderr[-3000:]
    assert not list(several.path.glob('dead/*.pth'))


def results_of(prefix: Path) -> tuple[list[dict[str, Any]], dict[str, float]]:
    return json.loads(Path(f'{prefix}.bbox.json').read_text()), json.loads(Path(f'{prefix}.metrics.json').read_text())


@pytest.mark.parametrize('num_images', [NUM_IMAGES, 1])
def test_two_processes_find_what_one_finds(num_images: int, several: Several) -> None:
    """Every image once, though shares are made equal by taking images twice; all figures to the last digit."""
    path, name = several.path, {NUM_IMAGES: 'five', 1: 'one'}[num_images]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    sys.path.append(str(path))
    try:
        arguments = [path / f'{name}.py', path / 'run' / f'iter_{STEPS}.pth', '--work-dir', path / f'alone_{name}']
        evaluate([*map(str, arguments), '--out', str(path / f'alone_{name}')])
    finally:
        sys.path.remove(str(path))
        torch.set_num_threads(threads)
    detections, metrics = results_of(path / f'two_{name}')
    images = Config.fromfile(path / f'{name}.py').test_evaluator[0].ann_file
    ids = [image['id'] for image in json.loads(Path(images).read_text())['images']]
    assert len(ids) == num_images
    assert [detection['image_id'] for detection in detections] == [image_id for image_id in ids for _ in range(50)]
    assert (detections, metrics) == results_of(path / f'alone_{name}')
    assert 'selection/spearman' in metrics and 'coco/bbox_mAP' in metrics


def test_sharded_training_learns_the_same(several: Several) -> None:
    """Two steps of SGD under FSDP, from the same weights; its checkpoint is one file like any other."""
    path = several.path
    files = [path / 'run' / f'iter_{STEPS}.pth', path / 'whole' / 'iter_2.pth', path / 'sharded' / 'iter_2.pth']
    before, whole, sharded = (torch.load(file, weights_only=False)['state_dict'] for file in files)
    assert Config.fromfile(path / 'sharded' / 'sharded.py').strategy.type == 'FSDPStrategy'
    trained = [name for name, weight in whole.items() if 'running_' not in name and not weight.equal(before[name])]
    assert len(trained) > 100 and whole.keys() == sharded.keys()
    for name in trained:
        # weights, of gradients summed in another order
        torch.testing.assert_close(sharded[name], whole[name], rtol=1e-5, atol=1e-7, msg=name)
