"""Which models the page offers: checkpoints and exported files, of runs or named by the user."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ...choices import EXPORTED, is_exported
from ...config_files import find_config
from ...deploy.model_files import files_of
from ...engine.resume import is_complete
from ...engine.trained_files import config_in, model_files, newest_first
from ...errors import InputError

FIRST_RUN = 'quickstart'
"""The run whose checkpoints come first: what ``make quickstart`` trains."""


class ListedModel(NamedTuple):
    """A model that can be shown."""

    name: str
    """To tell it from others by."""
    config: Path | None
    """That it was trained with; None: nobody knows, of an exported file, which runs without."""
    checkpoint: Path
    """A checkpoint, or an exported ``.onnx`` or ``.xml`` file."""


def found_models(work_dirs: str | Path) -> list[ListedModel]:
    """All whole checkpoints under a folder that have their config beside them, and all exported files.

    The quickstart's run comes first, then that with the newest file; in each run the newest checkpoint comes first and
    exported files last.
    """
    root = Path(work_dirs)
    runs: dict[Path, list[Path]] = {}
    for path in sorted(_model_files(root), key=newest_first):
        runs.setdefault(path.parent, []).append(path)
    models = []
    for folder in sorted(runs, key=lambda folder: folder != root / FIRST_RUN):  # others stay in their order
        config = config_in(folder)
        for path in sorted(runs[folder], key=is_exported):
            if config is not None or is_exported(path):
                models.append(ListedModel(path.relative_to(root).as_posix(), config, path))
    return models


def named_model(path: str | Path, config: str | Path | None = None) -> ListedModel:
    """A model that the user names.

    Args:
        path: a checkpoint, an exported file, or the work folder of a training, whose best or newest checkpoint is
            meant.
        config: a file, or a shipped config's name; None: the file beside the model.

    Raises:
        InputError: one of them isn't there.
    """
    if Path(path).is_dir() and config is None:
        return ListedModel(str(path), *map(Path, model_files([str(path)])))
    path = Path(path)
    if not path.is_file():
        raise InputError(f'there is no checkpoint {path}; correct the path')
    if config is not None:
        return ListedModel(str(path), find_config(config), path)
    beside = config_in(path.parent)
    if beside is None and not is_exported(path):
        raise InputError(f'there is no config beside {path}; name it with --config')
    return ListedModel(str(path), beside, path)


def _model_files(root: Path) -> Iterator[Path]:
    yield from filter(is_complete, root.rglob('*.pth'))
    for suffix in EXPORTED:
        yield from (path for path in root.rglob(f'*{suffix}') if all(file.is_file() for file in files_of(path)))
