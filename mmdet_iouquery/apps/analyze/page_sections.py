"""What stands on the page of an analysis."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...errors import InputError
from ...evaluation.selection_quality import SelectionQuality, selection_quality
from .attention_figures import attention_chart, interesting_queries, positional_attention_chart
from .chart import Chart
from .curves import curves_figure
from .edge_figures import edge_chart
from .image_figures import denoising_chart, selected_tokens_chart
from .layer_figures import layer_boxes_chart, layer_chart, layer_quantile_chart
from .model_runs import ModelRun
from .page import Note, Section, table_of
from .refinement import Refinement
from .run_logs import RunLog, curve_of
from .selection_figures import selection_chart, threshold_chart
from .temperature_figures import temperature_chart
from .trace import QueryTrace

Groups = Mapping[str, Sequence[ModelRun]]
_QUERIES, _EDGE_QUERIES = 3, 2  # shown of each image
_COLUMNS = {
    'prop_score': 'score > 0.5 (%)',
    'prop_both': 'score and IoU > 0.5 (%)',
    'right_class': 'class right at IoU > 0.5',
    'spearman': 'rank correlation',
    'calibration_error': 'calibration error',
}


def sections_of(
    groups: Groups, logs: Mapping[str, Sequence[RunLog]], temperatures: Sequence[float]
) -> Iterator[Section]:
    """The sections: selection, on the image, layers, edges (of decoders that tell of them), attention, curves."""
    yield Section('Selection: is a high score a good box?', [*_selection(groups)])
    yield Section('On the image', [*_images(groups)])
    yield Section('Layer by layer', [*_layers(groups)])
    if any(trace.edges is not None for runs in groups.values() for trace in runs[0].traces):
        yield Section('Edges as distributions', [*_edges(groups)])
    yield Section('Where queries look', [*_attention(groups, temperatures)])
    if logs:
        yield Section('Learning curves', [_curves(logs)])


def selection_rows(groups: Groups) -> list[dict[str, Any]]:
    """Numbers of the selected queries: a row for each training, as they are."""
    return [
        {'model': name, 'checkpoint': str(run.checkpoint), **selection_quality(run.selected)._asdict()}
        for name, runs in groups.items()
        for run in runs
        if run.selected is not None
    ]


def selection_table(groups: Groups) -> list[dict[str, Any]]:
    """A row for each model: mean and, over several trainings, sample standard deviation."""
    rows = []
    for name, runs in groups.items():
        qualities = [selection_quality(run.selected) for run in runs if run.selected is not None]
        if qualities:
            numbers = {title: _mean_of(qualities, key) for key, title in _COLUMNS.items()}
            queries = '/'.join(dict.fromkeys(str(quality.queries) for quality in qualities))
            rows.append({'model': name, 'trainings': len(qualities), 'queries': queries, **numbers})
    return rows


def stem(text: str) -> str:
    """A name for files: letters of any script in lower case, digits and hyphens."""
    return re.sub(r'[\W_]+', '-', text.lower()).strip('-')


def _mean_of(qualities: Sequence[SelectionQuality], key: str) -> str | None:
    values = [getattr(quality, key) for quality in qualities if getattr(quality, key) is not None]
    if not values:
        return None
    spread = f' ± {stdev(values):.3g}' if len(values) > 1 else ''
    return f'{mean(values):.4g}{spread}'


def _selection(groups: Groups) -> Iterator[Any]:
    runs = {name: [r.selected for r in runs if r.selected is not None] for name, runs in groups.items()}
    without = [name for name, qualities in runs.items() if not qualities]
    runs = {name: qualities for name, qualities in runs.items() if qualities}
    if runs:
        yield table_of(
            'Numbers',
            'Of the queries that the selector took, on all images. Score: the probability that a query was ranked '
            'by. IoU: with the object that its box overlaps most. Rank correlation: Spearman’s, of the two. '
            'Calibration error: their mean distance over ten bins of the score. ±: standard deviation over trainings.',
            selection_table(groups),
        )
        yield selection_chart(runs)
        yield threshold_chart(runs)
    if without:
        yield Note(
            f'Not here: {", ".join(without)}. Their queries are learned, or the model does not tell how its encoder '
            'scores them, so there is no score of a selector to compare with IoU.'
        )


def _images(groups: Groups) -> Iterator[Any]:
    for name, trace, image, label in _drawn(groups):
        yield _picture(selected_tokens_chart, trace, image, f'tokens-{label}', model=name)
    for name, trace, image, label in _drawn(groups):
        yield _picture(denoising_chart, trace, image, f'denoising-{label}', model=name)


def _layers(groups: Groups) -> Iterator[Any]:
    refined = {
        name: Refinement.joined([run.refined for run in runs if run.refined is not None])
        for name, runs in groups.items()
    }
    yield _chart(layer_chart, refined)
    for name, refinement in refined.items():
        yield _chart(layer_quantile_chart, name, refinement, f'layer-quantiles-{stem(name)}')
    for name, trace, image, label in _drawn(groups):
        yield _picture(layer_boxes_chart, trace, image, name, f'layer-boxes-{label}', model=name)


def _edges(groups: Groups) -> Iterator[Any]:
    for name, trace, image, label in _drawn(groups):
        queries, classes = interesting_queries(trace, _EDGE_QUERIES), groups[name][0].classes
        yield _picture(edge_chart, trace, image, queries, f'edges-{label}', classes, model=name)


def _attention(groups: Groups, temperatures: Sequence[float]) -> Iterator[Any]:
    for name, trace, image, label in _drawn(groups):
        queries, classes = interesting_queries(trace, _QUERIES), groups[name][0].classes
        yield _picture(attention_chart, trace, image, queries, f'attention-{label}', classes, model=name)
    first = {name: runs[0].traces[0] for name, runs in groups.items() if runs[0].traces}
    queries_of = {name: interesting_queries(trace, _QUERIES) for name, trace in first.items()}
    images = {name: image_of(trace) for name, trace in first.items()}
    if any(attention.dense for trace in first.values() for attention in trace.attention):
        yield _chart(positional_attention_chart, first, queries_of, images, 'positional-attention')
    yield _chart(temperature_chart, 'temperature', temperatures=temperatures)


def _curves(logs: Mapping[str, Sequence[RunLog]]) -> Chart:
    curves = [curve_of(name, runs) for name, runs in logs.items()]
    rows = [
        {'model': name, 'run': number, 'quantity': quantity, 'step': step, 'value': value}
        for name, runs in logs.items()
        for number, run in enumerate(runs)
        for quantity, line in run._asdict().items()
        for step, value in zip(line.steps, line.values)
    ]
    caption = 'COCO’s AP on the validation set, and the training loss, over training steps, from the logs of the runs.'
    return Chart('curves', 'Learning curves', caption, curves_figure(curves), rows)


def _drawn(groups: Groups) -> Iterator[tuple[str, QueryTrace, Any, str]]:
    """The images to draw of the first training of each model: model, trace, image, label for files."""
    depth = max((len(runs[0].traces) for runs in groups.values()), default=0)
    for number in range(depth):
        for name, runs in groups.items():
            if number < len(runs[0].traces):
                trace = runs[0].traces[number]
                yield name, trace, image_of(trace), f'{stem(name)}-{number + 1}'


def image_of(trace: QueryTrace) -> NDArray[Any]:
    """(H, W, 3) uint8 RGB of a traced image."""
    try:
        with Image.open(trace.path) as opened:
            return np.asarray(opened.convert('RGB'))
    except OSError as error:
        raise InputError(
            f'the image {trace.path} cannot be read: {error}; put it back, or analyse again with --restart'
        ) from error


def _picture(draw: Callable[..., Chart], trace: QueryTrace, *args: Any, model: str) -> Chart | Note:
    """A chart of a single image, which its caption names."""
    chart = _chart(draw, trace, *args, model=model)
    if isinstance(chart, Note) or not trace.path:
        return chart
    return chart._replace(caption=f'{chart.caption} Image: {Path(trace.path).name}.')


def _chart(draw: Callable[..., Chart], *args: Any, model: str | None = None, **settings: Any) -> Chart | Note:
    """A chart, its title naming the model, or the sentence that says why there is none."""
    try:
        chart = draw(*args, **settings)
    except InputError as error:
        return Note(f'{model}: {error}' if model and model not in str(error) else str(error))
    return chart._replace(title=f'{chart.title}: {model}') if model and model not in chart.title else chart
