"""What was understood of a set, as a record and in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .reading import Reading, Tally
from .split import Splits


def report_of(reading: Reading, splits: Splits, drawn: bool, seed: int, target: Path) -> dict[str, Any]:
    """The record: form, source, classes, counts of each split, what was left out and why, what was changed."""
    account = reading.account
    return {
        'form': reading.form,
        'source': str(reading.source),
        'classes': list(reading.classes),
        'parts': {split: _counts(split, splits, reading.classes, target) for split in splits},
        'drawn_with_seed': seed if drawn else None,
        'left_out': [{'what': kind, **_tally(reason, tally)} for (kind, reason), tally in account.left_out.items()],
        'changed': [_tally(change, tally) for change, tally in account.changed.items()],
        'remarks': list(account.remarks),
        'warnings': [],
    }


def describe(report: Mapping[str, Any]) -> str:
    """The record in lines for people."""
    splits = report['parts']
    images, boxes = (sum(split[key] for split in splits.values()) for key in ('images', 'boxes'))
    counts = _n(images, 'image'), _n(len(report['classes']), 'class'), _n(boxes, 'box')
    lines = [f'{report["source"]}: {report["form"]}, {", ".join(counts)}']
    for name, split in splits.items():
        by_class = ', '.join(f'{label} {count}' for label, count in split['boxes_by_class'].items())
        crowd = f', {_n(split["crowds"], "crowd")}' if split['crowds'] else ''
        lines.append(
            f'  {name}: {_n(split["images"], "image")} ({split["without_objects"]} without objects), '
            f'{_n(split["boxes"], "box")}{crowd} ({by_class})'
        )
        lines.append(f'    -> {split["file"]}')
    if report['drawn_with_seed'] is not None:
        share = splits['val']['images'] / (splits['val']['images'] + splits['train']['images'])
        lines.append(
            f'  no validation part: {share:.0%} of the images were drawn for it, by classes, with seed '
            f'{report["drawn_with_seed"]}'
        )
    lines += [f'  {remark}' for remark in report['remarks']]
    lines += [f'  changed: {tally["reason"]}: {_shown(tally)}' for tally in report['changed']]
    lines += [f'  left out, {tally["what"]}: {tally["reason"]}: {_shown(tally)}' for tally in report['left_out']]
    return '\n'.join(lines)


def _counts(name: str, splits: Splits, classes: tuple[str, ...], target: Path) -> dict[str, Any]:
    images = splits[name]
    labels = Counter(box.label for image in images for box in image.boxes)
    return {
        'images': len(images),
        'without_objects': sum(not image.boxes for image in images),
        'boxes': sum(labels.values()),
        'crowds': sum(box.crowd for image in images for box in image.boxes),
        'boxes_by_class': {label: labels[label] for label in classes},
        'file': str(target / f'{name}.json'),
    }


def _n(count: int, noun: str) -> str:
    return f'{count} {noun}' + ('' if count == 1 else 'es' if noun.endswith(('x', 's')) else 's')


def _tally(reason: str, tally: Tally) -> dict[str, Any]:
    return {'reason': reason, 'count': tally.count, 'first': list(tally.first), 'has_more': tally.has_more}


def _shown(tally: Mapping[str, Any]) -> str:
    more = ', ...' if tally['has_more'] else ''
    return f'{tally["count"]} ({", ".join(tally["first"])}{more})'
