"""The table of commands: what each is for, what reads its arguments, and what then runs.

All of it is names, so that nothing is imported but what a call needs.
"""

from __future__ import annotations

import argparse
import importlib
import shutil
import textwrap
from typing import Any, NamedTuple


class Command(NamedTuple):
    """One command. Functions are named ``module:function``, modules from this package on."""

    summary: str
    example: str
    """Arguments of a call that makes sense."""
    run: str
    """Takes what the parser gives. Of a light command it returns the exit status."""
    parser: str = ''
    """Takes ``prog`` and gives the parser, from a module that imports nothing heavy; empty: ``run`` takes the words."""
    tool: str = ''
    """The script in ``tools/`` that is the same command; empty: there is none."""
    check: str = ''
    """Takes what the parser gives, and raises InputError for mistakes that show before anything heavy is imported."""
    is_light: bool = False
    """Whether it runs without the package being registered: where torch or mmdet may be missing, or are not needed."""
    is_light_for: str = ''
    """Takes what the parser gives, and tells the same of one call; empty: ``is_light`` holds for all."""

    def parser_for(self, start: str | None) -> argparse.ArgumentParser:
        """The parser of a call that begins with ``start``; None: with the script in ``tools/``."""
        parser: argparse.ArgumentParser = load(self.parser)(start or self.tool)
        start = start or f'python tools/{self.tool}'
        parser.formatter_class = argparse.RawDescriptionHelpFormatter  # an example stays in one line
        parser.description = textwrap.fill(parser.description or '', shutil.get_terminal_size().columns - 2)
        parser.epilog = f'example:\n  {start} {self.example}'
        return parser


def load(name: str) -> Any:
    """A function that the table names."""
    module, _, function = name.partition(':')
    return getattr(importlib.import_module(f'..{module}', __package__), function)


COMMANDS = {
    'quickstart': Command(
        'from nothing, or from your own data, to a trained and evaluated detector',
        '--data my-set/ --work-dir work_dirs/first',
        'apps.quickstart.command:execute',
        'apps.quickstart.arguments:parser',
        'quickstart.py',
    ),
    'configs': Command(
        'the configs that came with the package, with parameters, FLOPs and AP',
        'rtdetr',
        'apps.configs.command:execute',
        'apps.configs.arguments:parser',
        is_light=True,
    ),
    'data': Command(
        'your images and labels, in any usual form, as COCO files, checked',
        'my-set/ --out my-set-coco',
        'apps.data.command:convert_data',
        'apps.data.arguments:parser',
        'data.py',
        check='apps.data.arguments:check',
    ),
    'train': Command(
        'train a detector, on your own data too',
        'rtdetr_r18vd --data my-set/ --weights rtdetr_r18vd.pth --epochs 50',
        'apps.train.command:execute',
        'apps.train.arguments:parser',
        'train.py',
        check='apps.train.arguments:check',
    ),
    'test': Command(
        'COCO AP of a checkpoint, or of an exported file',
        'rtdetr_r18vd work_dirs/r18/epoch_72.pth',
        'engine.launch:run_test',
        'command_line:evaluation_parser',
        'test.py',
        check='command_line:check_config',
    ),
    'detect': Command(
        'detections in some images, printed and drawn',
        'work_dirs/r18 street.jpg photos/ --out found/',
        'apps.detect.command:detect',
        'apps.detect.arguments:parser',
        is_light_for='apps.detect.arguments:is_light',
    ),
    'predict': Command(
        'detections of any number of images, into parquet',
        "model.onnx --images 'photos/*.jpg' -o found",
        'apps.predict.command:execute',
        'apps.predict.arguments:parser',
        'predict.py',
        is_light_for='apps.predict.arguments:is_light',
    ),
    'evaluate': Command(
        "COCO's numbers of detections that were written down",
        'found annotations/val.json',
        'apps.evaluate.command:execute',
        'apps.evaluate.arguments:parser',
        'eval_coco.py',
    ),
    'export': Command(
        'one file for other runtimes: ONNX, OpenVINO',
        'rtdetr_r18vd work_dirs/r18/epoch_72.pth -o model.onnx',
        'apps.export.command:execute',
        'apps.export.arguments:parser',
        'export.py',
        check='command_line:check_config',
    ),
    'quantize': Command(
        'an exported file in eight bits, and what that costs',
        'model.onnx --data val.json --images val/ -o model_int8.xml',
        'apps.export.quantize_command:execute',
        'apps.export.arguments:quantize_parser',
        'quantize.py',
    ),
    'calibrate': Command(
        'score thresholds and a calibration, fitted to the validation set',
        'rtdetr_r18vd work_dirs/r18/epoch_72.pth --out calibrated',
        'apps.calibrate.command:execute',
        'apps.calibrate.arguments:parser',
        'calibrate.py',
        check='command_line:check_config',
    ),
    'analyze': Command(
        'a page on what queries select, and where they go',
        'rtdetr_r18vd work_dirs/r18/epoch_72.pth --out queries',
        'apps.analyze.command:execute',
        'apps.analyze.arguments:parser',
        'analyze_queries.py',
    ),
    'compare': Command(
        'several configs on the same data with the same seeds, in one table',
        'rtdetr_r18vd dfine_hgnetv2-n --data my-set/ --iters 800 --work-dir work_dirs/both',
        'apps.compare.command:execute',
        'apps.compare.arguments:parser',
        'compare.py',
    ),
    'demo': Command(
        'a page to try a model on images',
        '--checkpoint work_dirs/r18/epoch_72.pth',
        'apps.demo.command:execute',
        'apps.demo.arguments:parser',
        'demo.py',
    ),
    'convert': Command(
        'weights from other projects, and back',
        'rtdetr_r18vd_6x_coco.pth rtdetr_r18vd.pth --source rtdetr',
        'apps.weights.command:convert',
        'apps.weights.arguments:convert_parser',
        'convert_checkpoint.py',
        check='apps.weights.arguments:check_source',
    ),
    'hub': Command(
        'a detector as a folder to share, and to the Hugging Face Hub',
        'save rtdetr_r18vd work_dirs/r18/epoch_72.pth my-detector --license apache-2.0',
        'apps.weights.command:share',
        'apps.weights.arguments:hub_parser',
        'hub.py',
    ),
    'doctor': Command(
        'what is installed, missing or slow; what is wrong with data or a checkpoint',
        'data rtdetr_r18vd',
        'apps.doctor.command:execute',
        'apps.doctor.arguments:parser',
        is_light=True,
    ),
    'benchmark': Command(
        'time inference, training, data and more, beside others doing the same',
        'inference --models R18 --rounds 3',
        'apps.benchmark.command:execute',
        'apps.benchmark.arguments:parser',
        'benchmark.py',
    ),
    'digits': Command(
        "the quickstart's set of handwritten digits",
        'data/digits',
        'apps.quickstart.command:make_digits',
        'apps.quickstart.arguments:digits_parser',
        'make_digits.py',
    ),
    'run': Command(
        "a tool of mmdet's own, or any Python file, with this package", 'get_flops CONFIG', 'run:main', is_light=True
    ),
    'completion': Command(
        'a script by which the shell completes commands, options and configs',
        'bash',
        'apps.completion:execute',
        'apps.completion:parser',
        is_light=True,
    ),
}
"""By name, in the order in which they are listed."""
