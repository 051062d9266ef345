"""A trace whose numbers tests know, and files that count as checkpoints."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from mmdet_iouquery.apps.analyze.trace import QueryTrace, ScoredBoxes, Tokens
from mmdet_iouquery.evaluation.selection_quality import Objects

WIDTH, HEIGHT = 128, 96
GREY = Image.new('RGB', (WIDTH, HEIGHT), (128, 128, 128))
NAMES = ('ant', 'bee')


def scored(*rows: tuple[tuple[float, float, float, float], float, float]) -> ScoredBoxes:
    return ScoredBoxes(np.array([row[0] for row in rows]), np.array([row[1:] for row in rows]))


def made_trace() -> QueryTrace:
    """Two queries that move by 10 px to the right with every stage."""
    boxes = [((x, 40.0, x + 20, 80.0), 0.1, 0.9) for x in (10.0, 20.0, 30.0)]
    still = ((60.0, 50.0, 200.0, 90.0), 0.4, 0.2)
    encoder, *layers = (scored(box, still) for box in boxes)
    return QueryTrace(
        image_id=0,
        path='',
        size_px=(WIDTH, HEIGHT),
        input_px=(128.0, 96.0),
        objects=Objects(np.zeros((0, 4)), np.zeros(0, int)),
        spatial_shapes=((12, 16), (6, 8)),
        anchors_px=encoder.boxes_px,
        tokens=Tokens(np.array([50, 192 + 9]), np.array([0, 1]), np.array([[20.0, 28.0], [104.0, 24.0]])),
        encoder=encoder,
        layers=tuple(layers),
        noise=None,
    )


def checkpoint(path: Path, age: float, config: str | None = 'config.py') -> Path:
    """A file that counts as whole, ``age`` seconds old."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({'state_dict': {'weight': torch.zeros(1)}}, path)
    os.utime(path, (1e9 - age, 1e9 - age))
    if config is not None:
        (path.parent / config).write_text('')
    return path
