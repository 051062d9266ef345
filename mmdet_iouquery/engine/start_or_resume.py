"""Whether a training starts, goes on or is finished, by what its work folder holds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ..checkpoints.files import read_meta
from ..config_options import differences
from ..errors import InputError
from .hooks.missed_validation_hook import MissedValidationHook, noted_iteration
from .processes import process_rank
from .resume import OUTDATED, checkpoint_to_resume, latest_checkpoint
from .run_settings import annotation_checksums, changed_files, recorded, recorded_checksums
from .work_dir import checkpoint_folder, set_aside

_WAYS_OUT = '--resume goes on from it, --restart sets it aside and starts anew, or name another --work-dir'


def begin(cfg: Config, settings: Mapping[str, Any], *, resume: str | None, restart: bool) -> bool:
    """Name in ``cfg`` the checkpoint to go on from, if there is one, and say so.

    A command that is called again goes on with its own run, so the same settings are asked for; whoever names
    ``resume`` may change them.

    Args:
        cfg: ``load_from`` and ``resume`` are set.
        settings: that are asked for, see :func:`~mmdet_iouquery.engine.run_settings.settings_of`.
        resume: path of a checkpoint, 'auto' for the newest whole one of the work folder, or None: not asked for.
        restart: set an earlier run aside and start anew.

    Returns:
        False where that run is finished.

    Raises:
        InputError: the folder holds a run of other settings, or one of which they are not known; ``resume`` names no
            whole checkpoint, or one that holds code.
    """
    work_dir, folder = Path(cfg.work_dir), checkpoint_folder(cfg)
    if restart:
        _set_aside(cfg, work_dir, folder)
        cfg.resume = False
        return True
    if resume is None and cfg.get('resume'):
        resume = cfg.get('load_from') or 'auto'  # the config's own wish: mmengine would take it unseen
    by_name = resume if resume != 'auto' else None
    checkpoint = checkpoint_to_resume(by_name) if by_name else latest_checkpoint(work_dir, folder)
    cfg.resume = checkpoint is not None
    if checkpoint is None:
        if resume is not None:
            print(f'note: nothing to resume in {work_dir}; training starts from the beginning')
        return True
    meta = read_meta(checkpoint)  # refuses a file that holds code, before anything else is said of it
    _compare_settings(work_dir, checkpoint, settings, asked_to=resume is not None)
    if _is_finished(cfg, checkpoint, meta):
        return False
    kept = ', kept as no later one is whole' if checkpoint.name.endswith(OUTDATED) else ''
    print(f'resuming from {checkpoint}{kept}')
    cfg.load_from = str(checkpoint)
    return True


def _set_aside(cfg: Config, work_dir: Path, folder: Path) -> None:
    if process_rank(cfg.launcher) != 0:
        return
    given = Path(cfg.filename).resolve()
    dumps = {given.with_stem(f'{given.stem}_resolved').name, given.name}  # mmengine's, of the config
    named = [given, *([Path(cfg.load_from).resolve()] if cfg.get('load_from') else [])]  # what the new run begins with
    for used_folder in {work_dir, folder}:
        keep = {path.name for path in named if path.parent == used_folder.resolve()}
        target = set_aside(used_folder, dumps, keep) if used_folder.is_dir() else None
        if target is not None:
            print(f'the earlier run is in {target} now')


def _compare_settings(work_dir: Path, checkpoint: Path, settings: Mapping[str, Any], asked_to: bool) -> None:
    before = recorded(work_dir)
    if before is None:
        if not asked_to:
            raise InputError(f'{work_dir} holds {checkpoint.name} of a run whose settings are not known; {_WAYS_OUT}')
        return
    changed = changed_files(recorded_checksums(work_dir), annotation_checksums(settings))
    differing = '; '.join(filter(None, [differences(before, settings), *(f'{path} changed since' for path in changed)]))
    if differing and not asked_to:
        raise InputError(
            f'{work_dir} holds a run with other settings, up to {checkpoint.name} ({differing}); {_WAYS_OUT}'
        )
    if differing:
        print(f'note: going on with other settings than before: {differing}')


def _is_finished(cfg: Config, checkpoint: Path, meta: Mapping[str, Any]) -> bool:
    """Whether a checkpoint is of the last step and the last validation is done; says so if it is."""
    loop = cfg.get('train_cfg') or {}
    unit = 'epoch' if loop.get('by_epoch', 'max_epochs' in loop) else 'iter'
    last = loop.get(f'max_{unit}s')
    if not last or meta.get(unit, 0) < last or _validation_missing(cfg, meta.get('iter')):
        return False
    if process_rank(cfg.launcher) == 0:
        print(
            f'this training is finished: {checkpoint} is of its last {unit}, {last}. `iouquery test` evaluates it; to '
            f'train on, give its config with --resume --cfg-options train_cfg.max_{unit}s=N; --restart starts anew'
        )
    return True


def _validation_missing(cfg: Config, iteration: int | None) -> bool:
    """Whether the last validation, which a resumed run makes up for, is not done."""
    hooks = [*(cfg.get('default_hooks') or {}).values(), *(cfg.get('custom_hooks') or [])]
    makes_up = any((hook or {}).get('type') in (MissedValidationHook, MissedValidationHook.__name__) for hook in hooks)
    return makes_up and cfg.get('val_cfg') is not None and noted_iteration(Path(cfg.work_dir)) != iteration
