"""The config and the checkpoint of a model: both named, or found in the folder of its training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ..checkpoints.files import FOLDER_FILES, damage
from ..config_files import find_config
from ..errors import InputError
from .resume import latest_checkpoint


def model_files(given: Sequence[str]) -> tuple[str, str]:
    """Config and checkpoint, for what a command line names: both of them, or a folder.

    A work folder stands for its config and for the best of its checkpoints, as ``CheckpointHook(save_best=...)`` keeps
    it; where there is no whole one, for the newest. A folder of ``save_pretrained`` stands for what is in it. What is
    taken of a folder is printed.

    Raises:
        InputError: it is neither, or is not there; or the folder lacks a config, or a whole checkpoint.
    """
    if len(given) == 2:
        return given[0], given[1]
    if len(given) != 1 or not Path(given[0]).is_dir():
        if len(given) == 1:
            find_config(given[0])  # there may be nothing of that name
        raise InputError(
            f'{" ".join(given)}: name a config and a checkpoint, CONFIG CHECKPOINT, or the work folder of a training'
        )
    folder = Path(given[0])
    config = config_in(folder)
    if config is None:
        raise InputError(f'the folder {folder} has no config, a .py file; name CONFIG CHECKPOINT')
    checkpoint = trained_checkpoint(folder)
    if checkpoint is None:
        raise InputError(f'the folder {folder} has no whole checkpoint; name CONFIG CHECKPOINT')
    print(f'note: {folder} stands for {config} and {checkpoint}', flush=True)
    return str(config), str(checkpoint)


def config_of(given: str) -> str:
    """A config, for a work folder its own; raises :class:`InputError` where a folder has none."""
    folder = Path(given)
    if not folder.is_dir():
        return given
    config = config_in(folder)
    if config is None:
        raise InputError(f'the folder {folder} has no config, a .py file; name CONFIG, or call: iouquery data {folder}')
    return str(config)


def checkpoint_of(folder: str | Path) -> str:
    """The checkpoint that a work folder stands for; raises :class:`InputError` where none is whole."""
    checkpoint = trained_checkpoint(Path(folder))
    if checkpoint is None:
        raise InputError(
            f'the folder {folder} has no whole checkpoint; name a file of it to hear what is wrong with it'
        )
    return str(checkpoint)


def model_pairs(words: Sequence[str]) -> list[tuple[str, str]]:
    """The same for several models, each a pair of words or a folder.

    Raises:
        InputError: a word is left over, or see :func:`model_files`.
    """
    pairs, remaining = [], [*words]
    while remaining:
        count = 1 if Path(remaining[0]).is_dir() else 2
        if len(remaining) < count:
            if len(words) == 1:
                find_config(words[0])
            raise InputError(
                f'models come in pairs of config and checkpoint, and there are {len(words)} words: {" ".join(words)}; '
                'name pairs CONFIG CHECKPOINT, or work folders of trainings'
            )
        pairs.append(model_files(remaining[:count]))
        del remaining[:count]
    return pairs


def config_in(folder: Path) -> Path | None:
    """The config of a run: the quickstart's name for it, or the newest that mmengine left; None: there is none."""
    return min(folder.glob('*.py'), key=lambda path: (path.name != 'config.py', *newest_first(path)), default=None)


def trained_checkpoint(folder: Path) -> Path | None:
    """The best whole checkpoint of a folder, else the newest, else that of a shared detector; None: there is none."""
    return next(_checkpoints_in(folder), None)


def _checkpoints_in(folder: Path) -> Iterator[Path]:
    """Whole ones: the best, the newest, that of a shared detector."""
    best = sorted(folder.glob('best_*.pth'), key=newest_first)
    yield from (path for path in best if path.is_file() and damage(path) is None)
    newest = latest_checkpoint(folder)
    if newest is not None:
        yield newest
    yield from (folder / name for name in FOLDER_FILES if (folder / name).is_file())


def newest_first(path: Path) -> tuple[float, str]:
    """A key to sort files by."""
    return -path.stat().st_mtime, str(path)
