"""Learning curves from the logs that mmengine writes beside its checkpoints."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import InputError
from .curves import Curve, Line


class RunLog(NamedTuple):
    """One run: training loss and COCO's AP in [0, 1], by training step."""

    loss: Line
    ap: Line


def read_run(folder: str | os.PathLike[str]) -> RunLog:
    """Read all ``*/vis_data/scalars.json`` below a work folder; where a run was resumed, the later file counts.

    An AP stands at the last training step that was logged before it.

    Raises:
        InputError: there is no such file, or it is not of mmengine's form, or it holds no training loss.
    """
    paths = sorted(Path(folder).glob('*/vis_data/scalars.json'))
    if not paths:
        raise InputError(
            f"{folder} holds no log of mmengine's (*/vis_data/scalars.json); name the work folder of a training"
        )
    loss: dict[int, float] = {}
    ap: dict[int, float] = {}
    for path in paths:
        records = _records(path)
        steps = [int(record['step']) for record in records if 'loss' in record]
        if steps:  # a resumed run writes its steps anew
            loss = {step: value for step, value in loss.items() if step < min(steps)}
            ap = {step: value for step, value in ap.items() if step < min(steps)}
        last = 0
        for record in records:
            if 'loss' in record:
                last = int(record['step'])
                loss[last] = float(record['loss'])
            for key, value in record.items():
                if key.endswith('bbox_mAP'):  # its own step counts epochs, or nothing at all
                    ap[max(last, int(record.get('step', 0)))] = float(value)
    if not loss:
        raise InputError(
            f'the logs below {folder} hold no training loss; name the work folder of a training that was longer than '
            'the interval of its LoggerHook'
        )
    return RunLog(*(Line.of(sorted(points.items())) for points in (loss, ap)))


def curve_of(name: str, runs: Sequence[RunLog]) -> Curve:
    """Several runs (seeds) of one config as a curve."""
    return Curve(name, tuple(run.ap for run in runs), tuple(run.loss for run in runs))


def _records(path: Path) -> list[dict[str, Any]]:
    records = []
    for number, line in enumerate(path.read_text(encoding='utf-8').splitlines(), start=1):
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if not isinstance(record, dict):
            raise InputError(f"{path}, line {number} is not a record of mmengine's ({line[:60]!r}); remove the line")
        records.append(record)
    return records
