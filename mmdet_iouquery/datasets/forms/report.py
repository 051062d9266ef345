"""What was understood of a set, as a record and in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .records import Reading, Tally
from .split import Parts


def report_of(reading: Reading, parts: Parts, drawn: bool, seed: int, target: Path) -> dict[str, Any]:
    """The record: form, source, classes, counts of each part, what was left out and why, what was changed."""
    account = reading.account
    return {
        'form': reading.form,
        'source': str(reading.source),
        'classes': list(reading.classes),
        'parts': {part: _counts(part, parts, reading.classes, target) for part in parts},
        'drawn_with_seed': seed if drawn else None,
        'left_out': [{'what': what, **_tally(reason, tally)} for (what, reason), tally in account.left_out.items()],
        'changed': [_tally(what, tally) for what, tally in account.changed.items()],
        'remarks': list(account.remarks),
        'warnings': [],
    }


def describe(report: Mapping[str, Any]) -> str:
    """The record in lines for people."""
    parts = report['parts']
    images, boxes = (sum(part[key] for part in parts.values()) for key in ('images', 'boxes'))
    counts = _n(images, 'image'), _n(len(report['classes']), 'class'), _n(boxes, 'box')
    lines = [f'{report["source"]}: {report["form"]}, {", ".join(counts)}']
    for name, part in parts.items():
        by_class = ', '.join(f'{label} {count}' for label, count in part['boxes_by_class'].items())
        crowd = f', {_n(part["crowds"], "crowd")}' if part['crowds'] else ''
        lines.append(
            f'  {name}: {_n(part["images"], "image")} ({part["without_objects"]} without objects), '
            f'{_n(part["boxes"], "box")}{crowd} ({by_class})'
        )
        lines.append(f'    -> {part["file"]}')
    if report['drawn_with_seed'] is not None:
        share = parts['val']['images'] / (parts['val']['images'] + parts['train']['images'])
        lines.append(
            f'  no validation part: {share:.0%} of the images were drawn for it, by classes, with seed '
            f'{report["drawn_with_seed"]}'
        )
    lines += [f'  {remark}' for remark in report['remarks']]
    lines += [f'  changed: {one["reason"]}: {_shown(one)}' for one in report['changed']]
    lines += [f'  left out, {one["what"]}: {one["reason"]}: {_shown(one)}' for one in report['left_out']]
    return '\n'.join(lines)


def _counts(name: str, parts: Parts, classes: tuple[str, ...], target: Path) -> dict[str, Any]:
    images = parts[name]
    labels = Counter(one.label for image in images for one in image.boxes)
    return {
        'images': len(images),
        'without_objects': sum(not image.boxes for image in images),
        'boxes': sum(labels.values()),
        'crowds': sum(one.crowd for image in images for one in image.boxes),
        'boxes_by_class': {label: labels[label] for label in classes},
        'file': str(target / f'{name}.json'),
    }


def _n(count: int, what: str) -> str:
    return f'{count} {what}' + ('' if count == 1 else 'es' if what.endswith(('x', 's')) else 's')


def _tally(reason: str, tally: Tally) -> dict[str, Any]:
    return {'reason': reason, 'count': tally.count, 'first': list(tally.first), 'has_more': tally.has_more}


def _shown(one: Mapping[str, Any]) -> str:
    more = ', ...' if one['has_more'] else ''
    return f'{one["count"]} ({", ".join(one["first"])}{more})'
