"""What the data doctor found, as a page for a terminal and as JSON."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

from .box_statistics import statistics
from .data_findings import DataFinding
from .data_inspection import InspectedSet

_WIDTH = 110
_SHOWN = 5  # examples of a finding on the page; the JSON has all


def exit_status(findings: Sequence[DataFinding]) -> int:
    """1 where something falsifies results or would stop a run, else 0."""
    return int(any(finding.level == 'error' for finding in findings))


def summary(sets: Sequence[InspectedSet], findings: Sequence[DataFinding]) -> dict[str, Any]:
    """Everything as plain numbers, text, lists and dicts: ``sets``, ``findings`` and ``status``."""
    return dict(
        sets=[_numbers(inspected) for inspected in sets],
        findings=[finding._asdict() for finding in findings],
        status=exit_status(findings),
    )


def _numbers(inspected: InspectedSet) -> dict[str, Any]:
    report = inspected.checked.report
    return dict(
        name=inspected.name,
        where=inspected.config.where,
        ann_file=str(report.ann_file),
        image_dir=None if inspected.checked.image_dir is None else str(inspected.checked.image_dir),
        unusable_images=inspected.on_error,
        network_input=None if inspected.resizing is None else inspected.resizing._asdict(),
        images=report.images,
        images_used=report.images_used,
        images_looked_at=len(inspected.images),
        images_unusable=sum(bool(facts.fault) for facts in inspected.images),
        annotations=report.annotations,
        class_counts=report.class_counts,
        **statistics(inspected.checked, inspected.resizing),
    )


def to_json(sets: Sequence[InspectedSet], findings: Sequence[DataFinding]) -> str:
    """The summary as JSON; a number that there is not is null."""
    return json.dumps(_without_nan(summary(sets, findings)), indent=2)


def _without_nan(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _without_nan(value) for key, value in node.items()}
    if isinstance(node, (list, tuple)):
        return [_without_nan(value) for value in node]
    return None if isinstance(node, float) and not math.isfinite(node) else node


def render(sets: Sequence[InspectedSet], findings: Sequence[DataFinding]) -> str:
    """The page."""
    numbers = [_numbers(inspected) for inspected in sets]
    lines = [
        f'{figures["name"]:<8}{figures["ann_file"]}   images in {figures["image_dir"] or "(remote)"}'
        for figures in numbers
    ]
    for title, rows in (('', _set_rows(numbers)), ('boxes of each class', _class_rows(numbers))):
        lines += ['', *_table(title, [figures['name'] for figures in numbers], rows)]
    for finding in findings:
        lines += ['', *_finding_lines(finding)]
    return '\n'.join([*lines, '', _verdict(findings)])


def _set_rows(numbers: list[dict[str, Any]]) -> list[tuple[str, list[str]]]:
    def row(name: str, cell: Callable[[dict[str, Any]], str]) -> tuple[str, list[str]]:
        return name, [cell(figures) for figures in numbers]

    return [
        row('images', lambda figures: str(figures['images'])),
        row('  used', lambda figures: str(figures['images_used'])),
        row('  looked at', lambda figures: str(figures['images_looked_at'])),
        row('  of these unusable', lambda figures: str(figures['images_unusable'])),
        row('width, px', lambda figures: _spread(figures['width'])),
        row('height, px', lambda figures: _spread(figures['height'])),
        row('width / height', lambda figures: _spread(figures['aspect'], 2)),
        row('boxes', lambda figures: str(sum(figures['class_counts'].values()))),
        row('  an image', lambda figures: _spread(figures['boxes_per_image'])),
        row('  small, medium, large', lambda figures: _shares(figures['box_shares'])),
        row('network input, px', lambda figures: _input(figures['network_input'])),
        row('  small, medium, large', lambda figures: _shares(figures['network_box_shares'])),
        row('  shorter side, px', lambda figures: _spread(figures['shorter_side_at_network'], 1)),
    ]


def _class_rows(numbers: list[dict[str, Any]]) -> list[tuple[str, list[str]]]:
    return [(name, [str(figures['class_counts'][name]) for figures in numbers]) for name in numbers[0]['class_counts']]


def _table(title: str, names: Sequence[str], rows: Sequence[tuple[str, list[str]]]) -> list[str]:
    first = max(len(title), *(len(name) for name, _ in rows)) + 2
    widths = [max(len(name), *(len(cells[i]) for _, cells in rows)) + 2 for i, name in enumerate(names)]
    table = [(title, list(names)), *rows]
    return [
        f'{name:<{first}}' + ''.join(f'{cell:>{width}}' for cell, width in zip(cells, widths)) for name, cells in table
    ]


def _spread(values: Sequence[float], digits: int = 0) -> str:
    """Least, median, greatest, e.g. ``5 .. 20 .. 70``."""
    if any(math.isnan(value) for value in values):
        return '-'
    return ' .. '.join(f'{value:.{digits}f}' if digits else f'{value:g}' for value in values)


def _shares(shares: dict[str, float] | None) -> str:
    return '-' if shares is None else '  '.join(f'{share:.0%}' for share in shares.values())


def _input(size: dict[str, Any] | None) -> str:
    if size is None:
        return 'not fixed'
    return f'{size["width"]} x {size["height"]}' + (' at most' if size['keep_ratio'] else '')


def _finding_lines(finding: DataFinding) -> list[str]:
    head = textwrap.wrap(f'{finding.level}: {finding.where}: {finding.text}', _WIDTH, subsequent_indent='    ')
    effect = [f'-> {finding.effect}'] if finding.effect else []
    body = [line for text in effect for line in textwrap.wrap(text, _WIDTH - 4, subsequent_indent='   ')]
    body += list(finding.examples[:_SHOWN])
    more = len(finding.examples) - _SHOWN
    return head + [f'    {line}' for line in body + ([f'... and {more} more'] if more > 0 else [])]


def _verdict(findings: Sequence[DataFinding]) -> str:
    errors = sum(finding.level == 'error' for finding in findings)
    warnings = sum(finding.level == 'warning' for finding in findings)
    if errors:
        falsify = 'findings falsify results or stop' if errors > 1 else 'finding falsifies results or stops'
        return f'{errors} {falsify} a run: correct these first'
    if warnings:
        return f'training can run; {warnings} warning{"s" if warnings > 1 else ""} to look at'
    return 'training can run: nothing was found that speaks against it'
