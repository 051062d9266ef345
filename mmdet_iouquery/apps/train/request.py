"""From what a person asks for to a config in the work folder, which can be read, changed and trained again."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config

from ...checkpoints.initializer import load_checkpoint
from ...config_files import find_config, model_name
from ...config_options import differences, flattened
from ...datasets.coco.json_file import read_coco
from ...engine.detector import begin_at_random, read_config
from ...engine.run_settings import has_trained
from ...engine.work_dir import REPLACED, made
from ...errors import InputError
from ...file_io import write_text
from ..data.coco_set import CocoSet
from ..data.conversion import read_data
from ..data.earlier_runs import same_data_check
from .arguments import NONE
from .child_config import child_text
from .fit import Wishes, fitted, learning_rate, nodes
from .weights import NAME as WEIGHTS
from .weights import check_weights, fitted_weights

NAME = 'config.py'
WRITTEN = (NAME, REPLACED, WEIGHTS)
"""Files that may be new in the work folder before a training starts."""
BATCH = 8
"""Images a device and step, where data is named and no batch."""
_BATCH_SIZE = 'train_dataloader.batch_size'


class TrainRequest(NamedTuple):
    """What a training is asked for beside a config; None: as the config says."""

    data: Path | None = None
    weights: str | None = None
    """A checkpoint to begin with, or :data:`~.arguments.NONE`."""
    epochs: int | None = None
    size: int | None = None
    """In px."""
    batch: int | None = None
    """Images a device and step."""
    devices: int = 1
    options: Mapping[str, Any] = {}
    """Overrides of the config, which hold as they are given, whatever it is fitted to."""
    work_dir: Path | None = None
    restart: bool = False
    log: str | None = None
    """Loggers, as the command line names them."""

    @property
    def is_plain(self) -> bool:
        """Whether the config is to be trained as it is."""
        return all(value is None for value in (self.data, self.weights, self.epochs, self.size, self.batch))


class FittedConfig(NamedTuple):
    """A config that was written into a work folder."""

    path: Path
    summary: str
    """Lines for a person: what it does."""


def written_config(config: str, request: TrainRequest) -> FittedConfig:
    """Write ``config.py`` into the work folder, based on another config.

    Args:
        config: a file, or the name of a shipped one.
        request: what it is fitted to.

    Raises:
        InputError: the config, data or weights are not to be had, or do not go with what is asked for; the folder holds
            a run of another config, or of the data as they were before they changed.
    """
    base, folder = _base(config), folder_of(config, request)
    path = folder / NAME
    if path == base:
        raise InputError(f'{base} would be written over itself; name another folder with --work-dir')
    lengths = {'train_cfg.max_epochs', 'train_cfg.max_iters'} & {*request.options}
    if request.epochs is not None and lengths:
        raise InputError(f'--epochs and {min(lengths)} of --cfg-options both say how long it trains: leave out one')
    with made(folder):
        cfg = read_config(str(base), dict(request.options))
        if request.weights not in (None, NONE):  # before data are converted, which may take long
            check_weights(cfg, request.weights, any_classes=request.data is not None)
        same_data = None if request.restart or request.data is None else same_data_check(request.data, [folder])
        data = None if request.data is None else read_data(request.data, check=same_data)
        images = None if data is None else len(read_coco(data.train_ann).images)
        batch = request.batch or request.options.get(_BATCH_SIZE) or (None if data is None else BATCH)
        cfg = fitted(cfg, Wishes(data, images, request.epochs, request.size, batch, request.devices), request.options)
        _make_paths_absolute(cfg)
        cfg.work_dir = str(folder)  # so that the config's name alone goes on with its run
        begin = _begin_with(cfg, request.weights, data, folder)
        text = child_text(base, cfg, _title(base, request))
        _check_same_config(path, text, restart=request.restart)
        notes = begin()  # not before: the folder's own run may begin with other weights
        if request.restart and path.is_file() and not path.with_name(REPLACED).exists():
            path.replace(path.with_name(REPLACED))
        write_text(path, text)
    return FittedConfig(path, _summary(path, cfg, data, images, request, notes))


def folder_of(config: str, request: TrainRequest) -> Path:
    """The work folder of a training that is asked for."""
    return (request.work_dir or default_folder(_base(config), request.data)).expanduser().absolute()


def _base(config: str) -> Path:
    return find_config(config).resolve()


def default_folder(base: str | Path, data: Path | None) -> Path:
    """The work folder where none is named: by the config, without its recipe, and the data."""
    stem = model_name(base) if Path(base).is_file() else Path(base).stem
    name = stem if data is None else f'{re.split("_[0-9]+xb", stem)[0]}_{data.expanduser().resolve().stem}'
    return Path('work_dirs') / name


def _make_paths_absolute(cfg: Config) -> None:
    """Those of files that a model names, as a teacher does, so that the config can be trained from another folder."""
    exist = {'checkpoint': Path.exists, 'model': Path.is_file}  # a teacher's model may also be a shipped config's name
    for node in nodes(cfg.model):
        for name, exists in exist.items():
            if isinstance(node.get(name), str) and exists(path := Path(node[name]).expanduser()):
                node[name] = str(path.absolute())


def _begin_with(cfg: Config, weights: str | None, data: CocoSet | None, folder: Path) -> Callable[[], list[str]]:
    """Name the weights in a config; what is returned writes them, if need be, and says what was done to them."""
    if weights is None:
        return partial(_own_weights, cfg)
    begin_at_random(cfg)  # a checkpoint has its own
    if weights == NONE:
        return lambda: ["weights  random, the backbone's too"]
    if data is None:
        cfg.load_from = str(Path(weights).expanduser().absolute())
        return list
    file, written = fitted_weights(weights, data.classes, folder)
    cfg.load_from = str(file.absolute())
    return lambda: [f'weights  {written()}']


def _own_weights(cfg: Config) -> list[str]:
    """Fetch the weights that the config begins with, if any, and say what they are."""
    begins = [("config's", cfg.get('load_from'))]
    for whose, node in (("config's", cfg.model), ("config's backbone", cfg.model.get('backbone') or {})):
        init_cfg = node.get('init_cfg')
        begins.append((whose, init_cfg.get('checkpoint') if isinstance(init_cfg, Mapping) else None))
    whose, begin = next((entry for entry in begins if entry[1]), ('', None))
    if begin is None:
        return []
    try:
        if str(begin).startswith(('http://', 'https://')):  # what else there is, the run says by the config's entry
            load_checkpoint(str(begin))
    except InputError as error:
        raise InputError(f'{error}. Or begin with --weights FILE, a detector, or --weights none, at random') from error
    return [f'weights  the {whose}: {begin}']


def _title(base: Path, request: TrainRequest) -> str:
    asked = {'data': request.data, 'weights': request.weights, 'epochs': request.epochs}
    asked.update(size=request.size, batch=request.batch)
    words = [f'--{name} {value}' for name, value in asked.items() if value is not None]
    if request.options:
        words.append(f'--cfg-options {" ".join(f"{key}={value}" for key, value in request.options.items())}')
    return f'{base.stem} with {" ".join(words)}. Yours to change.'.replace('\\', '/').replace('"', "'")


def _check_same_config(path: Path, text: str, restart: bool) -> None:
    """Raise :class:`InputError` where another config has been trained in the folder."""
    if restart or not path.is_file() or not has_trained(path.parent):
        return
    present = path.read_text(encoding='utf-8')
    if present == text:
        return
    before, now = (flattened(Config.fromstring(config_text, '.py').to_dict()) for config_text in (present, text))
    differing = differences(before, now)
    titles = [
        config_text.partition('\n')[0].strip('"').removesuffix('. Yours to change.') for config_text in (present, text)
    ]
    if differing and titles[0] != titles[1]:
        differing = f'there: {titles[0]}; asked for now: {titles[1]}'
    if differing:
        raise InputError(
            f'{path.parent} holds a run of another config ({differing}); go on with that one by naming {path}, '
            'for longer with --resume --cfg-options train_cfg.max_epochs=N, start anew with --restart, or name another '
            '--work-dir'
        )


def _summary(
    path: Path, cfg: Config, data: CocoSet | None, images: int | None, request: TrainRequest, notes: list[str]
) -> str:
    lines = [f'config   {path}']
    if data is not None:
        shown = ', '.join(data.classes[:10]) + (f' and {len(data.classes) - 10} more' if len(data.classes) > 10 else '')
        num_val = len(read_coco(data.val_ann).images)
        lines.append(f'data     {images} images for training, {num_val} for validation: {shown}')
    rate, batch = learning_rate(cfg, request.devices), cfg.train_dataloader.batch_size * request.devices
    step = f'{batch} images a step'
    lines += [f'batch    {step}' if rate is None else f'rate     {rate:.3g} at {step}', *notes]
    again = f'iouquery train {shlex.quote(str(path))}' + (f' --log {shlex.quote(request.log)}' if request.log else '')
    return '\n'.join([*lines, f'again    {again}   (goes on where it stopped)', ''])
