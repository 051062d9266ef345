"""Where a config and a checkpoint whose weights fit it were not made for each other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .class_names import class_notes
from .initializer import load_checkpoint
from .model_values import model_notes
from .preprocessing import preprocessing_notes


def checkpoint_notes(cfg: Mapping[str, Any], checkpoint: str | Path) -> list[str]:
    """What a config says of images, classes and the model, and a checkpoint has noted otherwise, a sentence for each.

    Args:
        cfg: whole.
        checkpoint: file or URL.

    Raises:
        InputError: the checkpoint cannot be read.
    """
    meta = load_checkpoint(str(checkpoint)).get('meta')
    if not isinstance(meta, Mapping):
        return []
    return [note for notes in (preprocessing_notes, class_notes, model_notes) for note in notes(cfg, meta, checkpoint)]
