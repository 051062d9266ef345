"""What ``iouquery configs`` runs: a table of the configs that came with the package, or one of them whole."""

from __future__ import annotations

import argparse
import difflib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from iouquery_runtime.errors import optional

from ...config_files import COSTS, config_names, config_root, find_config, short_name
from ...errors import InputError


class Entry(NamedTuple):
    """A shipped config, and what is known of its model. Where nothing is known, None."""

    name: str
    """The shortest that means it."""
    path: str
    """In the folder of configs."""
    parameters: int | None
    """As its authors report them, else as ``docs/costs.py`` counted them; likewise FLOPs."""
    flops: int | None
    ap: float | None
    """Of boxes, in percent, on COCO val2017."""
    reported_by: str | None
    """Whose the figures are."""


def execute(args: argparse.Namespace) -> int:
    """Print the table, or the config.

    Raises:
        InputError: there is no such config.
    """
    if args.show:
        print(shown(args.show))
        return 0
    wanted = args.filter.lower().removesuffix('.py')
    matching = (
        sorted(  # models whose AP is known first, of these the ones that are called so, a family from small to large
            (entry for entry in entries() if wanted in entry.path),
            key=lambda entry: (
                entry.ap is None,
                not entry.name.startswith(wanted),
                entry.path.partition('_')[0],
                entry.parameters or 0,
            ),
        )
    )
    if not matching:
        close = difflib.get_close_matches(args.filter, [entry.name for entry in entries()], n=3)
        hint = f'close to it: {", ".join(close)}; ' if close else ''
        raise InputError(f'no shipped config has {args.filter!r} in its name; {hint}`iouquery configs` lists all')
    if args.json:
        print(json.dumps([entry._asdict() for entry in matching], indent=1))
        return 0
    known = [entry for entry in matching if entry.ap is not None]
    listed = matching if args.all or not known else known
    print(table(listed))
    if others := len(matching) - len(listed):
        print(f'and {others} of which nobody has reported an AP (swaps, ablations, the quickstart): --all')
    return 0


def shown(name: str) -> str:
    """The text of a config, with what its bases bring.

    Raises:
        InputError: there is no such file, nor a shipped config of the name; or mmengine is not installed.
    """
    path = find_config(name)
    config = optional('mmengine.config', 'showing a config', "'mmdet-iouquery[onedl]'")
    return str(config.Config.fromfile(path).pretty_text)


def entries(root: Path | None = None) -> list[Entry]:
    """The configs in a folder, with the figures that ``model-index.yml`` beside it leads to; None: the shipped ones."""
    root = config_root() if root is None else root
    names = config_names(root)
    figures, costs = _figures(root.parent), _costs(root)
    listed = []
    for name in names:
        parameters, flops, *reported = figures.get(f'configs/{name}', [None] * 4)
        cost = costs.get(name, {})
        parameters, flops = parameters or cost.get('parameters'), flops or cost.get('flops')
        listed.append(Entry(short_name(name, names), name, parameters, flops, *reported))
    return listed


def _costs(root: Path) -> dict[str, dict[str, Any]]:
    """What was counted of the configs in a folder, by their paths in it."""
    path = root / COSTS
    return dict(json.loads(path.read_text(encoding='utf-8'))) if path.is_file() else {}


def _figures(folder: Path) -> dict[str, list[Any]]:
    """Parameters, FLOPs, AP and whose they are, by the path of a config in ``folder``."""
    yaml = optional('yaml', 'a table of the configs', 'pyyaml')
    figures_by_config: dict[str, list[Any]] = {}
    for name in _read(yaml, folder / 'model-index.yml')['Import']:
        metafile = _read(yaml, folder / name)
        reported_by = {item['Name']: item['Metadata'].get('Reported By') for item in metafile['Collections']}
        for model in metafile['Models']:
            metadata = model.get('Metadata', {})
            figures = [metadata.get('Parameters'), metadata.get('FLOPs'), _box_ap(model)]
            known = any(figure is not None for figure in figures)
            figures_by_config[model['Config']] = [*figures, reported_by[model['In Collection']] if known else None]
    return figures_by_config


def _read(yaml: Any, path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding='utf-8'))


def _box_ap(model: dict[str, Any]) -> float | None:
    """On COCO; None: there is none."""
    results = (result for result in model.get('Results', ()) if result['Dataset'] == 'COCO')
    return next((result['Metrics'].get('box AP') for result in results), None)


def table(entries: Sequence[Entry]) -> str:
    """The entries, for a person to read."""
    rows = [('name', 'parameters', 'FLOPs', 'COCO AP', 'whose', 'file')]
    rows += [
        (
            entry.name,
            _in(entry.parameters, 1e6, 'M'),
            _in(entry.flops, 1e9, 'G'),
            '' if entry.ap is None else f'{entry.ap:.1f}',
            entry.reported_by or '',
            entry.path,
        )
        for entry in entries
    ]
    widths = [max(map(len, column)) for column in zip(*rows)]
    return '\n'.join('  '.join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)


def _in(value: int | None, unit: float, name: str) -> str:
    return '' if value is None else f'{value / unit:.3g} {name}'
