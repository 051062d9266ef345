"""What the data doctor makes of the sets that it has read: findings, each with what training does about it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...config_options import type_name
from ...datasets.coco.checks import Unchecked
from . import box_statistics as boxes
from .data_inspection import InspectedSet, is_checked_loader
from .duplicates import alike, repeated, same

COCO_DETECTIONS = 100  # that COCO's AP reads an image


class DataFinding(NamedTuple):
    """One finding; examples name files, and the annotations in them where it is about boxes."""

    level: str
    """'error': falsifies results or stops a run; 'warning': may well be a mistake; 'note'."""
    where: str
    text: str
    effect: str
    """What training or evaluation does about it."""
    examples: tuple[str, ...] = ()


class Limits(NamedTuple):
    """What the model can take of one image; None: it has no such limit, or it was not found in the config."""

    num_queries: int | None
    num_denoising: int | None


def limits_of(model: Mapping[str, Any]) -> Limits:
    """Queries and denoising positives of a model's config, where it does not name them those of our parts."""
    head = type_name(model.get('bbox_head') or {}) == 'RTDETRHead'
    denoising = _first(model, 'denoising')
    positives = denoising.get('num_denoising', 100) if isinstance(denoising, Mapping) else None
    return Limits(_first(model, 'num_queries') or (300 if head else None), positives)


def _first(node: Any, name: str) -> Any:
    """The first value of this key in a config, at any depth."""
    if isinstance(node, Mapping):
        if node.get(name) is not None:
            return node[name]
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        return next((value for child in node if (value := _first(child, name)) is not None), None)
    return None


def findings(sets: Sequence[InspectedSet], limits: Limits, unchecked: Sequence[Unchecked] = ()) -> list[DataFinding]:
    """All findings, errors first."""
    findings_of_sets = [finding for inspected in sets for finding in _of_set(inspected, limits)]
    findings_of_sets += [
        DataFinding('warning', unknown.where, f'not checked: {unknown.kind}', unknown.why) for unknown in unchecked
    ]
    for first, second in combinations(sets, 2):
        if first.trains != second.trains:
            findings_of_sets += _shared(*((first, second) if first.trains else (second, first)))
    return sorted(findings_of_sets, key=lambda finding: ('error', 'warning', 'note').index(finding.level))


def _of_set(inspected: InspectedSet, limits: Limits) -> Iterator[DataFinding]:
    yield from _unusable(inspected)
    yield from _turned(inspected)
    yield from _kinds(inspected)
    yield from _remarks(inspected)
    yield from _useless_boxes(inspected)
    yield from _odd_boxes(inspected)
    yield from _crowded(inspected, limits)
    yield from _within(inspected)


# --- files ------------------------------------------------------------------------------------------------------------

_EFFECTS = {
    (True, 'skip'): 'training takes another image instead and names the file in its log',
    (True, 'raise'): "training stops there: set on_error='skip' where it loads images, or repair the files",
    (False, 'raise'): 'evaluation stops there: repair the files, or take them out of the annotations',
}
_UNCHECKED = (
    'the pipeline does not check: mmdet stops at what it cannot read, and takes the grey rest of a cut file for '
    "image; load with dict(type='LoadImageFromFile', _scope_='mmdet_iouquery'), or put CheckImage behind "
    'LoadImageFromFile'
)
_ENDLESS = (
    "mmdet's LoadImageFromFile stops at them with OpenCV 4.12: load with dict(type='LoadImageFromFile', "
    "_scope_='mmdet_iouquery'), or write the marker: printf '\\xff\\xd9' >> FILE"
)


def _unusable(inspected: InspectedSet) -> Iterator[DataFinding]:
    bad = [f'{name}: {facts.fault}' for name, facts in zip(inspected.files(), inspected.images) if facts.fault]
    if bad:
        effect = _EFFECTS.get((inspected.trains, inspected.on_error), _UNCHECKED)
        skipped = inspected.trains and inspected.on_error == 'skip' and len(bad) < len(inspected.images)
        text = f'{_images(len(bad))} cannot be used'
        yield DataFinding('warning' if skipped else 'error', inspected.name, text, effect, tuple(bad))
    yield from _remarked(inspected)
    doubtful = [
        f'{name}: {facts.complaint}' for name, facts in zip(inspected.files(), inspected.images) if facts.complaint
    ]
    if doubtful:
        text = f'{_images(len(doubtful))} with damage in the compressed data'
        yield DataFinding(
            'warning', inspected.name, text, 'read as they are, parts may be garbled: look at them', tuple(doubtful)
        )


def _remarked(inspected: InspectedSet) -> Iterator[DataFinding]:
    """Files that are used with a line in the log."""
    ours = any(map(is_checked_loader, inspected.config.pipeline))
    remarked = [(f'{name}: {facts.remark}', facts.no_end) for name, facts in zip(inspected.files(), inspected.images)]
    endless = tuple(text for text, no_end in remarked if no_end)
    if endless:
        text = f'{_images(len(endless))} without an end marker, but with every pixel'
        level, effect = ('warning', 'used as they are') if ours else ('error', _ENDLESS)
        yield DataFinding(level, inspected.name, text, effect, endless)
    dark = tuple(text for (text, no_end), facts in zip(remarked, inspected.images) if facts.remark and not no_end)
    if dark:
        text = f'{_images(len(dark))} of 16 bits that use a small part of them'
        yield DataFinding('warning', inspected.name, text, 'nearly black, as scaled to 8 bits', dark)


def _turned(inspected: InspectedSet) -> Iterator[DataFinding]:
    stored: list[str] = []
    upright: list[str] = []
    unclear: list[str] = []
    for name, row, facts in zip(inspected.files(), inspected.rows, inspected.images):
        if facts.orientation == 1 or facts.fault:
            continue
        width, height = inspected.checked.arrays.image_sizes[row]
        tells = facts.orientation >= 5 and width != height
        (stored if facts.as_stored else upright if tells else unclear).append(
            f'{name}: orientation {facts.orientation}'
        )
    if stored:
        unchecked = inspected.on_error == 'unchecked'
        effect = 'the image is turned upright, its boxes are not; ' + _UNCHECKED if unchecked else 'taken as stored'
        text = f'{_images(len(stored))} annotated as stored, though EXIF data say to turn them'
        yield DataFinding('error' if unchecked else 'note', inspected.name, text, effect, tuple(stored))
    if upright:
        text = f'{_images(len(upright))} annotated upright, turned by EXIF data'
        yield DataFinding('note', inspected.name, text, 'turned upright', tuple(upright))
    if unclear:
        text = (
            f'{_images(len(unclear))} to be turned by EXIF data, where the size does not tell how they were annotated'
        )
        effect = 'turned upright, boxes taken to be of the upright image: look at one'
        yield DataFinding('warning', inspected.name, text, effect, tuple(unclear))


_KIND_EFFECTS = {
    'grey': 'the same in all three channels',
    'CMYK': 'converted to RGB',
    '16 bits': 'scaled to 8',
    'palette': 'converted to RGB',
    'transparent': 'transparency is dropped, whatever colour lies under it shows',
    'animated': 'the first frame stands for all',
    'LAB': 'converted to RGB',
}


def _kinds(inspected: InspectedSet) -> Iterator[DataFinding]:
    for kind, effect in _KIND_EFFECTS.items():
        names = tuple(
            name for name, facts in zip(inspected.files(), inspected.images) if facts.kind == kind and not facts.fault
        )
        if names:
            yield DataFinding('note', inspected.name, f'{_images(len(names))} stored otherwise: {kind}', effect, names)


def _within(inspected: InspectedSet) -> Iterator[DataFinding]:
    files = inspected.files()
    pairs = tuple(f'{files[i]} = {files[k]}' for i, k in repeated([facts.digest for facts in inspected.images]))
    if pairs:
        effect = 'each is trained on' if inspected.trains else 'each counts'
        yield DataFinding(
            'warning', inspected.name, f'{_images(len(pairs))} the same as another of the set', effect, pairs
        )


def _shared(train: InspectedSet, other: InspectedSet) -> Iterator[DataFinding]:
    where = f'{train.name}, {other.name}'
    first, second = train.files(), other.files()
    equal = same([facts.digest for facts in train.images], [facts.digest for facts in other.images])
    if equal:
        text = f'{_images(len(equal))} of {other.name} found in {train.name} too, byte for byte'
        effect = f'results on {other.name} are too good: part of it was learnt by heart'
        yield DataFinding('error', where, text, effect, tuple(f'{first[i]} = {second[k]}' for i, k in equal))
    known = {k for _, k in equal}
    looks = alike([facts.look for facts in train.images], [facts.look for facts in other.images])
    looks = [(i, k) for i, k in looks if k not in known]
    if looks:
        text = f'{_images(len(looks))} of {other.name} that look like one of {train.name}'
        effect = 'the same scene, or saved again? then results are too good; look at some'
        yield DataFinding('warning', where, text, effect, tuple(f'{first[i]} ~ {second[k]}' for i, k in looks))
    named = [second[k] for _, k in same(first, second) if k not in known]
    if named and train.checked.image_dir != other.checked.image_dir:
        text = f'{_images(len(named))} of {other.name} named like one of {train.name}, with another content'
        yield DataFinding('note', where, text, 'none: they are told apart by folder', tuple(named))


# --- boxes ------------------------------------------------------------------------------------------------------------


def _remarks(inspected: InspectedSet) -> Iterator[DataFinding]:
    for remark in inspected.checked.remarks:
        falsifies = 'counts as missed' in remark and not inspected.trains
        text, _, effect = remark.partition('; ')
        yield DataFinding('error' if falsifies else 'warning', inspected.name, text, effect)


def _useless_boxes(inspected: InspectedSet) -> Iterator[DataFinding]:
    arrays, wanted = inspected.checked.arrays, inspected.checked.wanted
    effect = (
        'dropped' if inspected.trains else "COCO's evaluation counts them as missed: take them out of the annotations"
    )
    text = '{} without an area, under 1 px, NaN or outside the image'
    yield from _boxes(inspected, wanted & arrays.degenerate(), 'note' if inspected.trains else 'error', text, effect)
    missed = "COCO's evaluation knows no ignore and counts them as missed: write iscrowd=1 for what is not to count"
    level, effect = ('note', 'dropped') if inspected.trains else ('error', missed)
    yield from _boxes(inspected, wanted & arrays.ignored, level, '{} marked ignore', effect)
    crowds = boxes.usable(inspected.checked) & arrays.crowd
    effect = (
        'no targets: what finds them is trained as background' if inspected.trains else 'neither rewarded nor punished'
    )
    yield from _boxes(inspected, crowds, 'note', '{} marked iscrowd', effect)


def _odd_boxes(inspected: InspectedSet) -> Iterator[DataFinding]:
    checked = inspected.checked
    over = boxes.usable(checked) & checked.arrays.beyond_border(2.0)
    yield from _boxes(inspected, over, 'note', '{} more than 2 px over the border of the image', 'cut at the border')
    effect = 'two targets in one place' if inspected.trains else 'found once, the other counts as missed'
    yield from _boxes(inspected, boxes.duplicates(checked), 'warning', '{} repeated exactly, class and all', effect)
    effect = 'kept; often a label of the image as a whole'
    yield from _boxes(inspected, boxes.covering(checked), 'note', '{} over the whole image', effect)
    size = 'as stored' if inspected.resizing is None else f'at {inspected.resizing.width} x {inspected.resizing.height}'
    text = f'{{}} with a side under {boxes.TINY} px {size}'
    effect = 'hardly seen: the finest map has a stride of 8 px; enlarge the input, or crop'
    yield from _boxes(inspected, boxes.tiny(checked, inspected.resizing), 'note', text, effect)


def _boxes(
    inspected: InspectedSet, affected: NDArray[Any], level: str, text: str, effect: str
) -> Iterator[DataFinding]:
    rows = np.flatnonzero(affected)
    if not len(rows):
        return
    share = len(rows) / max(len(affected), 1)
    counted = f'{len(rows)} box{"es" if len(rows) > 1 else ""} ({share:.1%})'
    checked = inspected.checked
    examples = tuple(
        f'{checked.file_names[checked.arrays.image_rows[row]]}: annotation {checked.annotation_ids[row]}'
        for row in rows
    )
    yield DataFinding(level, inspected.name, text.format(counted), effect, examples)


def _crowded(inspected: InspectedSet, limits: Limits) -> Iterator[DataFinding]:
    counts = boxes.boxes_per_image(inspected.checked)
    queries, positives = limits
    at_most = f'at most {queries} are matched in a step' if inspected.trains else f'at most {queries} can be found'
    rules = [(queries, 'warning', f'than num_queries={queries}', f'{at_most}: raise num_queries')]
    if inspected.trains:
        effect = 'each step takes a random choice of them for denoising; the matching sees all'
        rules.append((positives, 'note', f'than num_denoising={positives}', effect))
    else:
        effect = f"COCO's AP reads the {COCO_DETECTIONS} best detections of an image: the others count as missed"
        rules.append((COCO_DETECTIONS, 'warning', f'than {COCO_DETECTIONS}', effect))
    for limit, level, text, effect in rules:
        if limit is not None and (counts > limit).any():
            rows = np.flatnonzero(counts > limit)
            names = tuple(f'{inspected.checked.file_names[row]}: {counts[row]} boxes' for row in rows)
            yield DataFinding(level, inspected.name, f'{_images(len(rows))} with more boxes {text}', effect, names)
    empty = np.flatnonzero(counts == 0)
    if len(empty) and inspected.config.need_boxes:
        left_out = inspected.trains and inspected.config.filter_empty
        effect = (
            'left out (filter_empty_gt)'
            if left_out
            else 'taken as background'
            if inspected.trains
            else 'false alarms count'
        )
        names = tuple(inspected.checked.file_names[row] for row in empty)
        yield DataFinding('note', inspected.name, f'{_images(len(empty))} without a box', effect, names)


def _images(count: int) -> str:
    return f'{count} image{"s" if count > 1 else ""}'
