"""What ``iouquery analyze`` runs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...config_files import model_name
from ...config_options import flattened, read_options
from ...engine.detector import default_device, read_config
from ...engine.launch import report_differences
from ...engine.run_settings import finished_before, settings_of
from ...engine.trained_files import model_pairs
from ...engine.work_dir import check_writable
from ...errors import InputError
from ...file_io import identity, write_json, write_text
from .arguments import parser
from .chart import Chart, save_chart
from .model_runs import ModelRun, collect, grouped, require_same_images
from .page import Note, page
from .page_sections import sections_of, selection_rows
from .run_logs import RunLog, read_run

PAGE_NAME, NUMBERS_NAME, SETTINGS_NAME = 'index.html', 'selection.json', 'settings.json'


def analyze(arguments: Sequence[str] | None = None) -> None:
    """What :func:`execute` does, with the arguments of a command line."""
    execute(parser().parse_args(arguments))


def execute(args: argparse.Namespace) -> None:
    """Trace models, draw, write the page.

    Raises:
        InputError: something named is missing, doesn't fit or can't be looked at.
    """
    args.cfg_options = read_options(args.cfg_options)
    runs = _runs(args)
    out = Path(args.out)
    check_writable(out, option='--out')
    settings = _settings(args, runs)
    if finished_before(out / SETTINGS_NAME, settings, args.restart):
        print(f'finished before, nothing to do; --restart draws anew\npage: {out / PAGE_NAME}')
        return
    device = args.device or default_device()
    for run in runs:
        report_differences(run.cfg, str(run.checkpoint))
        collect(run, split=args.split, images=args.images, drawn=args.pictures, device=device, seed=args.seed)
    require_same_images(runs)
    write(out, runs, _logs(runs), args.temperatures)
    write_json(out / SETTINGS_NAME, settings)


def write(out: Path, runs: Sequence[ModelRun], logs: dict[str, list[RunLog]], temperatures: Sequence[float]) -> None:
    """Write everything into a folder: each chart's files, ``selection.json`` and the page."""
    out.mkdir(parents=True, exist_ok=True)
    groups = grouped(runs)
    sections = [*sections_of(groups, logs, temperatures)]
    for section in sections:
        for block in section.parts:
            if isinstance(block, Chart):
                save_chart(block, out)
            elif isinstance(block, Note):
                print(f'note: {block.text}')
    rows = selection_rows(groups)
    write_json(out / NUMBERS_NAME, rows)
    write_text(out / PAGE_NAME, page('What queries select, and where they go', _intro(runs), sections))
    for row in rows:
        print(
            f'{row["model"]} ({Path(row["checkpoint"]).name}): both score and IoU above 0.5 in {row["both_above"]} of '
            f'{row["queries"]} selected queries ({row["prop_both"]:.3g} %)'
        )
    print(f'page: {out / PAGE_NAME}   (each figure beside it as PNG, SVG, CSV and JSON; numbers: {NUMBERS_NAME})')


def _settings(args: argparse.Namespace, runs: Sequence[ModelRun]) -> dict[str, Any]:
    """All that the outcome depends on, but for the images themselves."""
    settings = {key: getattr(args, key) for key in ('split', 'images', 'pictures', 'temperatures', 'seed')}
    models = [dict(name=run.name, checkpoint=identity(run.checkpoint), config=settings_of(run.cfg)) for run in runs]
    return flattened({**settings, 'models': models})


def _runs(args: argparse.Namespace) -> list[ModelRun]:
    """The models of the command line, before any of them is built."""
    pairs = model_pairs(args.models)
    names = args.names or [model_name(config) for config, _ in pairs]
    if len(names) != len(pairs):
        raise InputError(f'--names gives {len(names)} names for {len(pairs)} models; give one for each')
    for _, checkpoint in pairs:
        if not Path(checkpoint).is_file():
            raise InputError(f'there is no file {checkpoint}; name the checkpoint (.pth) of a training')
    return [
        ModelRun(name, read_config(config, args.cfg_options), Path(checkpoint))
        for name, (config, checkpoint) in zip(names, pairs)
    ]


def _logs(runs: Sequence[ModelRun]) -> dict[str, list[RunLog]]:
    """Learning curves of the trainings whose logs lie beside their checkpoints."""
    logs: dict[str, list[RunLog]] = {}
    for run in runs:
        try:
            logs.setdefault(run.name, []).append(read_run(run.checkpoint.parent))
        except InputError as error:
            print(f'note: no learning curve of {run.checkpoint}: {error}')
    return {name: run_logs for name, run_logs in logs.items() if run_logs}


def _intro(runs: Sequence[ModelRun]) -> list[str]:
    return [
        f'{len(runs[0].images)} images. Where single images are shown, they are of the first training of each '
        'model. All numbers drawn stand in the CSV and JSON files under each figure.',
        *(f'{run.name}: {run.checkpoint}' for run in runs),
    ]
