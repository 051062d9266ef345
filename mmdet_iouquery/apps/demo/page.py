"""The page: an image and a checkpoint go in, boxes and tokens come out. It loads nothing from other hosts."""

from __future__ import annotations

import html
import os
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

os.environ['GRADIO_ANALYTICS_ENABLED'] = 'False'  # read when gradio is imported

import gradio as gr

from ...errors import InputError
from ..analyze.draw import Box
from ..analyze.trace import Numbers, QueryTrace
from .overlay import RESULT, detections, draw_overlay, names_of, stages
from .session import DemoModel, Found

THRESHOLD = 0.5
NO_CHECKPOINT = (
    'There is no checkpoint yet. Run `make quickstart`, which trains a small model, and load this page again.'
)
NO_IMAGE = 'Drop an image to see what the model finds in it.'
NO_TOKENS = "This model's queries come from no encoder token: there is none to show."
TOKENS = 'Dots: the encoder tokens that became queries; larger on coarser levels, the lighter the higher their score.'
# On narrow screens the result stands between the image's file and the controls, so that both are seen together.
_STYLE = """
#checkpoint input { text-overflow: ellipsis; padding-right: 2em; }
#detections .scroll { max-height: 420px; overflow-y: auto; }
#detections table { width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums; }
#detections table, #detections tr { border: 0; }
#detections th, #detections td { padding: 2px 6px; text-align: right; border: 0 solid var(--border-color-primary); }
#detections td { border-top-width: 1px; }
#detections th:first-child, #detections td:first-child { text-align: left; }
@media (max-width: 760px) {
  #controls { display: contents; }
  #controls > * { order: 3; flex: 1 1 100%; }
  #controls > #image { order: 1; }
  #outcome { order: 2; }
}
"""


def build_page(catalogue: Callable[[], Sequence[Found]]) -> gr.Blocks:
    """The page, for :func:`launch_page`.

    Args:
        catalogue: the checkpoints to choose from, the default first; asked whenever the page is loaded.
    """
    known: dict[str, Found] = {}
    model_of = lru_cache(maxsize=2)(DemoModel)

    def fill() -> tuple[Any, str]:
        checkpoints = {entry.name: entry for entry in catalogue()}
        known.update(checkpoints)
        return gr.Dropdown(
            list(checkpoints), value=next(iter(checkpoints), None)
        ), NO_IMAGE if checkpoints else NO_CHECKPOINT

    def show(path: str | None, name: str | None, threshold: float, stage: str, with_tokens: bool) -> tuple[Any, ...]:
        if name not in known or path is None:
            return NO_IMAGE if name in known else NO_CHECKPOINT, None, '', gr.skip()
        try:
            model = model_of(known[name].config, known[name].checkpoint)
            image, trace = model.look(path)
        except InputError as error:
            return f'**{html.escape(str(error))}**', None, '', gr.skip()
        stages_shown = stages(trace)
        # A stage that stands is not sent back: that would undo a choice made since.
        choice = gr.Radio(list(stages_shown)) if stage in stages_shown else gr.Radio(list(stages_shown), value=RESULT)
        stage = stage if stage in stages_shown else RESULT
        boxes = detections(stages_shown[stage], trace.size_px, threshold)
        names = names_of(stages_shown[stage], model.classes)
        drawing = draw_overlay(image, boxes, names, trace if with_tokens else None)
        text = _said(len(boxes), stages_shown[stage].scores, threshold) + (_legend(trace) if with_tokens else '')
        return text, drawing, _table(boxes, names), choice

    with gr.Blocks(title='Try a model', analytics_enabled=False, delete_cache=(3600, 3600)) as page:
        gr.Markdown('# Try a model')
        with gr.Row():
            with gr.Column(scale=1, min_width=320, elem_id='controls'):
                file = gr.File(label='Image', height=150, elem_id='picture')
                checkpoint = gr.Dropdown(label='Checkpoint', elem_id='checkpoint')
                threshold = gr.Slider(
                    0, 1, THRESHOLD, step=0.01, label='Score threshold', buttons=[], elem_id='threshold'
                )
                about = 'the encoder, a decoder layer, or the last one: the result'
                stage = gr.Radio([RESULT], value=RESULT, label='Boxes of', info=about, elem_id='stage')
                tokens = gr.Checkbox(label='Tokens that became queries', elem_id='tokens')
                table = gr.HTML(padding=False, elem_id='detections')
            with gr.Column(scale=2, min_width=320, elem_id='outcome'):
                status = gr.Markdown(NO_IMAGE, elem_id='status')
                result = gr.Image(show_label=False, format='png', interactive=False, buttons=[], elem_id='result')
        page.load(fill, None, [checkpoint, status], api_visibility='private')
        gr.on(
            [file.change, checkpoint.input, threshold.change, stage.input, tokens.input],
            show,
            [file, checkpoint, threshold, stage, tokens],
            [status, result, table, stage],
            trigger_mode='always_last',
            concurrency_limit=1,  # a model serves one call at a time
            show_progress_on=result,
            api_visibility='private',
        )
    return page


def launch_page(page: gr.Blocks, *, host: str, port: int) -> str:
    """Serve a page in the background; returns its address.

    Raises:
        InputError: the port is taken, or the host isn't this machine's.
    """
    try:
        _, address, _ = page.launch(
            server_name=host,
            server_port=port,
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            ssr_mode=False,
            show_error=True,
            footer_links=[],
            theme=gr.themes.Default(font=['system-ui', 'sans-serif'], font_mono=['ui-monospace', 'monospace']),
            css=_STYLE,
        )
    except OSError as error:
        raise InputError(f"port {port} of {host} can't be served ({error}); choose another with --port") from error
    return address


def _said(count: int, scores: Numbers, threshold: float) -> str:
    text = f'**{count} of {len(scores)} queries** score at least {threshold:.2f}.'
    return text if count else f'{text} The best has {scores.max():.2f}.'


def _legend(trace: QueryTrace) -> str:
    return f'\n\n{NO_TOKENS if trace.tokens is None else TOKENS}'


def _table(boxes: Sequence[Box], names: Sequence[str]) -> str:
    """Class, score and corners of the boxes, best first; nothing where there are none."""
    if not boxes:
        return ''
    rows = ['<th>class</th><th>score</th><th colspan="4">x1, y1, x2, y2 in px</th>']
    for box in boxes:
        cells = [html.escape(names[box.label]), f'{box.score:.2f}', *(f'{side:.0f}' for side in box.xyxy_px)]
        rows.append(''.join(f'<td>{cell}</td>' for cell in cells))
    return f'<div class="scroll"><table>{"".join(f"<tr>{row}</tr>" for row in rows)}</table></div>'
