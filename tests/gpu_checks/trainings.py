"""Parts that train by mmengine's runner. Each takes a report and the name of a device, which mmengine finds itself."""

from __future__ import annotations

import os

os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')  # before CUDA begins: products that are the same each time

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import plain_configs  # noqa: F401  before mmengine
import torch
from helpers import random_batch, small_detector, with_fixed_norms
from mmdet.utils import register_all_modules
from mmengine.hooks import Hook
from runs import SMALL_MODEL, small_run
from torch import Tensor

import mmdet_iouquery  # noqa: F401  before anything of mmdet
from mmdet_iouquery import accelerate_training, find_coco_set, restore
from mmdet_iouquery.apps.quickstart.command import config_text
from mmdet_iouquery.apps.quickstart.digits import build_digits
from mmdet_iouquery.core.deformable_attention import BACKENDS, why_not

from .frame import Report, SkipError
from .parts import exact_products, outcome

ROOT = Path(__file__).resolve().parents[2]
STEPS = 6
MEETING = """
from pathlib import Path
import torch.distributed as dist
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

@HOOKS.register_module()
class NoteMeeting(Hook):
    def after_train(self, runner):
        Path(runner.work_dir, 'met.txt').write_text(f'{dist.get_backend()} {dist.get_world_size()}')
"""

register_all_modules(init_default_scope=True)


class Watch(Hook):
    """Keeps losses and, after the last step, the kinds of the model's modules; breaks off after a step, saved."""

    def __init__(self, stop: int | None = None) -> None:
        self.stop = stop
        self.losses: list[float] = []
        self.kinds: set[type] = set()

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        self.losses.append(float(outputs['loss']))
        self.kinds = {type(module) for module in runner.model.modules()}
        if runner.iter + 1 == self.stop:
            meta = {'epoch': runner.epoch, 'iter': runner.iter + 1}
            runner.save_checkpoint(runner.work_dir, 'stopped.pth', by_epoch=False, meta=meta)
            raise KeyboardInterrupt


def trained(digits: Path, work_dir: Path, watch: Watch, **options: Any) -> dict[str, Tensor]:
    """Weights after the steps of a small RT-DETR, on whatever device mmengine takes."""
    plain = {
        'train_cfg.max_iters': STEPS,
        'default_hooks.checkpoint': None,
        'randomness.seed': 3,
    }
    runner = small_run(digits, work_dir, {**plain, **options}, SMALL_MODEL)
    runner.register_hook(watch, priority='VERY_LOW')
    try:
        runner.train()
    except KeyboardInterrupt:
        if watch.stop is None:
            raise
    return {name: value.detach().cpu().clone() for name, value in runner.model.named_parameters()}


def apart(ours: dict[str, Tensor], others: dict[str, Tensor]) -> float:
    """The largest difference of two sets of weights; infinite where names differ."""
    if ours.keys() != others.keys():
        return float('inf')
    return max((ours[name] - others[name]).abs().max().item() for name in ours)


def small_set(folder: Path) -> Path:
    """Eight training images of handwriting."""
    return build_digits(folder / 'digits', num_train=8, num_val=4, image_size=96, progress=False)


def check_resume(report: Report, device: str) -> None:
    """Broken off after three of six steps: no further from a whole run than two whole runs are from each other."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        digits, watches = small_set(folder), [Watch(), Watch(), Watch(stop=3), Watch()]
        whole = trained(digits, folder / 'whole', watches[0])
        again = trained(digits, folder / 'again', watches[1])
        trained(digits, folder / 'part', watches[2])
        checkpoint = str(folder / 'part' / 'stopped.pth')
        resumed = trained(digits, folder / 'resumed', watches[3], resume=True, load_from=checkpoint)
    report.add('losses', [watch.losses for watch in watches])
    noise = apart(again, whole)
    report.add('two whole runs are apart by', noise)
    report.at_most('the resumed run is apart by', apart(resumed, whole), 10 * noise)
    report.holds('the steps were 3 and 3', true=[len(watch.losses) for watch in watches[2:]] == [3, 3])


def check_deterministic(report: Report, device: str) -> None:
    """Of each back end: what torch refuses; where it refuses nothing, two runs are equal to the last bit."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        digits = small_set(folder)
        for backend in BACKENDS:
            reason = why_not(backend, torch.device(device), (4, 4, 4), 'bilinear')
            if reason is not None:
                report.add(backend, f'cannot run: {reason}')
                continue
            options = {'model.bbox_head.decoder.attention_backend': backend, 'randomness.deterministic': True}
            runs = []
            try:
                for number in range(2):
                    runs.append(trained(digits, folder / f'{backend}_{number}', Watch(), **options))
            except RuntimeError as error:  # torch's word for an operator that has no deterministic way
                report.add(backend, f'refused: {str(error).splitlines()[0]}')
                continue
            finally:
                torch.use_deterministic_algorithms(mode=False)
            report.add(backend, f'two runs are apart by {apart(*runs)}')
            report.holds(f'{backend} trains the same twice', true=apart(*runs) == 0)


def check_accelerate(report: Report, device: str) -> None:
    """The hook changes no module there, and the modules that it would put in place compute as the plain ones do."""
    with report.step('the hook'), TemporaryDirectory() as name:
        folder = Path(name)
        digits, on, off = small_set(folder), Watch(), Watch()
        trained(digits, folder / 'on', on)  # the quickstart's config has the hook
        # in place of the quickstart's own; it does nothing on a GPU either
        trained(digits, folder / 'off', off, **{'default_hooks.accelerate': {'type': 'KeepFreedMemoryHook'}})
        report.add('losses with and without', [on.losses, off.losses])
        report.holds('the modules are of the same classes', true=on.kinds == off.kinds or device == 'cpu')
        report.at_most('first losses are apart by', abs(on.losses[0] - off.losses[0]), 1e-4)
    with report.step('the modules'), exact_products():
        torch.manual_seed(0)
        model: Any = with_fixed_norms(small_detector().train().to(device))
        model.bbox_head.denoising = None
        images, samples = random_batch([3, 1], 160, 192)
        plain = outcome(model, images, samples)['losses']
        accelerate_training(model)
        faster = outcome(model, images, samples)['losses']
        restore(model)
        difference = max(abs(faster[key] - plain[key]) for key in plain)
        report.at_most('losses of accelerated modules are apart by', difference, 1e-4)


def check_ddp(report: Report, device: str) -> None:
    """Four steps in one process that torchrun starts, and in a plain one: the same weights within 1e-3."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / 'meeting_of_gpu_checks.py').write_text(MEETING)
        imports = "custom_imports = dict(imports=['mmdet_iouquery', 'meeting_of_gpu_checks'])\n"
        text = config_text(find_coco_set(small_set(folder)), iters=4, image_size=64) + SMALL_MODEL + imports
        plain, launched = folder / 'plain.py', folder / 'launched.py'
        plain.write_text(text)
        launched.write_text(text + "default_hooks = dict(meeting=dict(type='NoteMeeting'))\n")
        environment = {**os.environ, 'PYTHON': sys.executable}
        environment['PYTHONPATH'] = os.pathsep.join([str(folder), environment.get('PYTHONPATH', '')])
        train = str(ROOT / 'tools' / 'train.py')
        by_torchrun = ['bash', str(ROOT / 'tools' / 'dist_train.sh'), str(launched), '1']
        for command in (by_torchrun, [sys.executable, train, str(plain)]):
            work_dir = folder / f'from_{Path(command[2]).stem}'
            subprocess.run([*command, f'--work-dir={work_dir}', '--no-check'], env=environment, check=True)
        met = (folder / 'from_launched' / 'met.txt') if (folder / 'from_launched').exists() else None
        notes = sorted(folder.glob('from_*/met.txt'))
        report.add('met over', notes[0].read_text() if notes else f'nothing was noted in {met}')
        expected = 'nccl 1' if device == 'cuda' else 'gloo 1'
        report.holds(f'it is {expected}', true=bool(notes) and notes[0].read_text() == expected)
        weights = [torch.load(path, map_location='cpu', weights_only=True) for path in folder.glob('from_*/iter_4.pth')]
        report.holds('both left a checkpoint', true=len(weights) == 2)
        states = [{k: v for k, v in weight['state_dict'].items() if v.is_floating_point()} for weight in weights]
        report.at_most('weights are apart by', apart(*states), 1e-3)


def check_quickstart(report: Report, device: str) -> None:
    """Its AP on a CPU was 0.58 to 0.64, by seed and processor."""
    if device == 'cpu':
        raise SkipError('takes minutes on a CPU')
    with TemporaryDirectory() as name:
        command = [sys.executable, str(ROOT / 'tools' / 'quickstart.py'), f'--work-dir={name}']
        subprocess.run(command, check=True)
        (path,) = Path(name).rglob('*.metrics.json')
        metrics = json.loads(path.read_text(encoding='utf-8'))
    report.add('metrics', metrics)
    precision = next(value for key, value in metrics.items() if key.endswith('bbox_mAP'))
    report.holds(f'AP {precision} is at least 0.5', true=precision >= 0.5)
