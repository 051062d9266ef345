"""Entries of a config that mmengine and torch look at late, or in words that do not name them: checked at the start."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mmengine.config import Config
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner
from torch.multiprocessing import get_all_sharing_strategies
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

from ...config_options import as_list, likely_misspelt, type_name
from ...errors import InputError
from .config_mistakes import SECTIONS, alike, entries

_LISTS = ('val_evaluator', 'test_evaluator', 'param_scheduler', 'custom_hooks')
_DICTS = (*(name for name in SECTIONS if name not in _LISTS), 'env_cfg', 'randomness')

_REMOVABLE_HOOKS = ('runtime_info', 'timer', 'sampler_seed', 'logger', 'param_scheduler', 'checkpoint')
"""Those that mmengine registers by itself, and alone leaves out where they are None."""

_LOG_LEVELS = ('CRITICAL', 'ERROR', 'WARNING', 'INFO', 'DEBUG', 'NOTSET')


def check_sections(cfg: Mapping[str, Any], mode: str) -> None:
    """The entries that a training or a test cannot do without, and those that go together.

    Args:
        mode: 'train' or 'test'.

    Raises:
        InputError: one is missing, is something else than a dict (a list) of settings, or has a name that is all but
            one of mmengine's.
    """
    for name in cfg:
        meant = likely_misspelt(name)
        if meant is not None:
            raise InputError(f'{_file(cfg)}: nothing reads {name}; did you mean {meant}?')
    for name in _DICTS:
        if cfg.get(name) is not None and not isinstance(cfg[name], Mapping):
            raise InputError(f"{_file(cfg)}: {name} must be a dict, such as dict(type='...'), got {cfg[name]!r}")
    for name in _LISTS:
        if not all(isinstance(entry, Mapping) for entry in as_list(cfg.get(name))):
            raise InputError(f"{_file(cfg)}: {name} must be dicts, such as [dict(type='...')], got {cfg[name]!r}")
    needed = ['model', 'env_cfg', *(['train_dataloader', 'train_cfg', 'optim_wrapper'] if mode == 'train' else [])]
    evaluations = [[f'{split}_{name}' for name in ('dataloader', 'evaluator', 'cfg')] for split in ('val', 'test')]
    missing = [name for name in [*needed, *(evaluations[1] if mode == 'test' else [])] if cfg.get(name) is None]
    if missing:
        task = 'training' if mode == 'train' else 'a test'
        raise InputError(
            f'{_file(cfg)} lacks {", ".join(missing)}, which {task} needs; add it, or name a config of _base_ that '
            'has it'
        )
    for names in evaluations:
        absent = [name for name in names if cfg.get(name) is None]
        if 0 < len(absent) < len(names):
            present = [name for name in names if name not in absent]
            raise InputError(
                f'{_file(cfg)} has {" and ".join(present)} without {" and ".join(absent)}, and an evaluation needs all '
                f'three; add what is missing, or set {" = ".join(present)} = None to do without'
            )


def check_values(cfg: Mapping[str, Any]) -> None:
    """Numbers and words of the training's schedule, data loaders, optimizer, checkpoints, log and seed.

    Raises:
        InputError: one is out of its range, or of a name that nothing takes.
    """
    for name, hook in (cfg.get('default_hooks') or {}).items():
        if hook is None and name not in _REMOVABLE_HOOKS:
            raise InputError(
                f'default_hooks.{name}=None: mmengine takes None for {", ".join(_REMOVABLE_HOOKS)} alone; to do '
                'without another hook, write default_hooks=dict(_delete_=True, ...) with those that stay'
            )
    for section, settings, name, fits, wanted in _ranges(cfg):
        if name in settings and not fits(settings[name]):
            key = f'{section}.{name}' if section else name
            raise InputError(f'{key}={settings[name]!r} must be {wanted}')
    for section, settings, takers in _arguments(cfg):
        known = sorted({name for taker in takers for name in inspect.signature(taker).parameters})
        for name in sorted({*settings} - {*known, 'type', 'priority', '_scope_'}):
            remedy = [*alike(name, known), 'correct or remove it']
            raise InputError('; '.join([f'{section}: {takers[0].__name__} has no argument {name!r}', *remedy]))


_Range = tuple[str, Mapping[str, Any], str, Callable[[Any], bool], str]


def _ranges(cfg: Mapping[str, Any]) -> Iterator[_Range]:
    """Section, its settings, the name of one, whether a value fits, and what it must be."""

    def whole(section: str, settings: Any, *names: str, least: int = 1, **also: object) -> Iterator[_Range]:
        """Whole numbers, or a value of ``also``, which stands for what its name says."""
        wanted = f'a whole number from {least} on' + ''.join(
            f', or {value} for {meaning}' for meaning, value in also.items()
        )
        for name in names:
            yield section, settings, name, lambda x: _is_whole(x, least) or x in also.values(), wanted

    def number(section: str, settings: Any, *names: str) -> Iterator[_Range]:
        for name in names:
            yield section, settings, name, _is_number, 'a number from 0 on'

    loop = cfg.get('train_cfg') or {}
    for name in ('max_epochs', 'max_iters'):  # mmengine takes 12.0 too
        yield 'train_cfg', loop, name, lambda x: _is_number(x) and x == x // 1 >= 1, 'a whole number from 1 on'
    yield from whole('train_cfg', loop, 'val_interval')
    yield from whole('train_cfg', loop, 'val_begin', least=0)
    for section in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        loader = cfg.get(section) or {}
        yield from whole(section, loader, 'batch_size', unbatched=None)
        yield from whole(section, loader, 'num_workers', least=0)
    wrapper = cfg.get('optim_wrapper') or {}
    yield from whole('optim_wrapper', wrapper, 'accumulative_counts')
    if isinstance(wrapper.get('optimizer'), Mapping):
        yield from number('optim_wrapper.optimizer', wrapper['optimizer'], 'lr', 'weight_decay', 'momentum', 'eps')
    if isinstance(wrapper.get('clip_grad'), Mapping):
        yield from number('optim_wrapper.clip_grad', wrapper['clip_grad'], 'max_norm', 'clip_value')
    for index, schedule in enumerate(as_list(cfg.get('param_scheduler'))):
        yield from whole(f'param_scheduler[{index}]', schedule, 'begin', least=0)
        yield from whole(f'param_scheduler[{index}]', schedule, 'end')
        yield from whole(f'param_scheduler[{index}]', schedule, 'T_max', all=None)
    for section, hook in _checkpoint_hooks(cfg):
        yield from whole(section, hook, 'interval', 'max_keep_ckpts', none=-1)
    yield from whole('default_hooks.logger', (cfg.get('default_hooks') or {}).get('logger') or {}, 'interval')
    yield from whole('randomness', cfg.get('randomness') or {}, 'seed', least=0, any=None)
    levels = f'one of {", ".join(_LOG_LEVELS)}'
    yield '', cfg, 'log_level', lambda x: x in _LOG_LEVELS or type(x) is int, levels
    strategies = sorted(get_all_sharing_strategies())
    yield '', cfg, 'sharing_strategy', lambda x: x is None or x in strategies, f'one of {", ".join(strategies)}'


def _arguments(cfg: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any], list[Callable[..., Any]]]]:
    """Section, settings and who takes them, where a wrong name surfaces late or not at all."""
    for section, hook in _checkpoint_hooks(cfg):
        yield section, hook, [CheckpointHook, Runner.save_checkpoint]
    yield 'randomness', cfg.get('randomness') or {}, [Runner.set_randomness]
    clip = (cfg.get('optim_wrapper') or {}).get('clip_grad')
    if isinstance(clip, Mapping):
        yield 'optim_wrapper.clip_grad', clip, [clip_grad_value_ if clip.get('type') == 'value' else clip_grad_norm_]


def _checkpoint_hooks(cfg: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    hooks = entries(cfg.get('default_hooks') or {}, 'default_hooks')
    return ((section, entry) for section, entry in hooks if type_name(entry) == 'CheckpointHook')


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < math.inf


def _is_whole(value: Any, least: int) -> bool:
    return type(value) is int and value >= least


def _file(cfg: Mapping[str, Any]) -> str:
    return str(cfg.filename) if isinstance(cfg, Config) and cfg.filename else 'the config'
