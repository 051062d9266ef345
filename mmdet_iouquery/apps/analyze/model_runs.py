"""Running models over images and keeping what the figures need."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from tqdm import tqdm

from ...datasets import check_config
from ...engine.detector import load_detector
from ...errors import InputError
from ...evaluation.selection_quality import SelectedQueries
from .images import Images
from .refinement import Refinement, refinement
from .trace import QueryTrace, selected_queries


@dataclass
class ModelRun:
    """One checkpoint to look at, and what was found.

    Attributes:
        name: models of one name are trainings (seeds) of one config.
        cfg: its config.
        checkpoint: the file.
        selected: selected queries of all images; None: the model selects none.
        refined: the queries that end up on objects, of all images.
        traces: the images to draw, in full.
        classes: class names.
        images: ids of the images, in order.
    """

    name: str
    cfg: Config
    checkpoint: Path
    selected: SelectedQueries | None = None
    refined: Refinement | None = None
    traces: list[QueryTrace] = field(default_factory=list)
    classes: tuple[str, ...] = ()
    images: tuple[Any, ...] = ()


def collect(run: ModelRun, *, split: str, images: int, drawn: int, device: str, seed: int = 0) -> None:
    """Trace a model's queries on the first images of its set; the first ``drawn`` with objects are kept in full.

    Raises:
        InputError: a model, a checkpoint or a set that can't be looked at.
    """
    cfg = Config(dict(run.cfg))
    check_config(Config({key: value for key, value in cfg.items() if key in ('model', f'{split}_dataloader')}))
    detector = load_detector(cfg, run.checkpoint).to(torch.device(device))
    all_images = Images(cfg, split)
    selected, refined, ids = [], [], []
    for index in tqdm(range(min(images, len(all_images))), desc=f'{run.name} ({run.checkpoint.name})', unit='image'):
        trace_of_image = all_images.trace(detector, index, seed=seed)
        ids.append(trace_of_image.image_id)
        if trace_of_image.encoder is not None:
            selected.append(selected_queries(trace_of_image))
        refined.append(refinement(trace_of_image))
        if len(run.traces) < drawn and len(trace_of_image.objects.labels):
            run.traces.append(trace_of_image)
    run.classes, run.images = all_images.classes, tuple(ids)
    run.selected = SelectedQueries.joined(selected) if selected else None
    run.refined = Refinement.joined(refined)


def require_same_images(runs: Sequence[ModelRun]) -> None:
    """Models are compared on the same images."""
    for run in runs[1:]:
        if run.images != runs[0].images:
            raise InputError(
                f'{run.cfg.filename} names other images than {runs[0].cfg.filename}; models are compared on the same '
                'set: give both the same data, for instance with --cfg-options'
            )


def grouped(runs: Iterable[ModelRun]) -> dict[str, list[ModelRun]]:
    """Runs by name, in the order in which names come first."""
    groups: dict[str, list[ModelRun]] = {}
    for run in runs:
        groups.setdefault(run.name, []).append(run)
    return groups
