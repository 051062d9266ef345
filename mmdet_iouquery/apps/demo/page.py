"""The page: images, a webcam or a video and one or two models go in, boxes and tokens come out.

It loads nothing from other hosts.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable, Sequence
from typing import Any

os.environ['GRADIO_ANALYTICS_ENABLED'] = 'False'  # read when gradio is imported

import gradio as gr

from ...errors import InputError
from .catalogue import ListedModel
from .handlers import ALONE, NO_FRAME, NO_IMAGE, NO_VIDEO, SHOWN, Handlers
from .model import Shelf
from .overlay import RESULT

THRESHOLD = 0.5
FRAME_EVERY_S = 0.25
"""How often a frame of the webcam is looked at, where the model is that fast."""
WEBCAM_S, WEBCAMS = 600, 4
"""How long one may be watched without being started anew, and how many at the same time."""
LARGEST_UPLOAD = '500mb'
_PRIVATE: dict[str, Any] = dict(api_visibility='private')
_STYLE = """
#work { display: grid; gap: var(--layout-gap); grid-template-columns: minmax(0, 1fr); }
#work > * { min-width: 0; }
@media (min-width: 761px) {
  #work { grid-template: "inputs outcome" auto "switches outcome" 1fr / minmax(320px, 1fr) minmax(0, 2fr); }
  #inputs { grid-area: inputs; }
  #outcome { grid-area: outcome; }
  #switches { grid-area: switches; }
}
#checkpoint input, #other input { text-overflow: ellipsis; padding-right: 2em; }
#examples .grid-wrap { height: auto; min-height: 0; max-height: none; padding: 0; overflow: visible; }
#examples .grid-container { grid-template-columns: repeat(4, minmax(0, 1fr)); padding: 0; }
#examples .thumbnail-item { width: 100%; height: auto; aspect-ratio: 1; }
#truth [data-testid=block-label], #result [data-testid=block-label], #other-result [data-testid=block-label] {
  position: static; border: 0; box-shadow: none; }
#layers { flex: 1 1 200px; min-width: min(200px, 100%); }
#layers:has(figure + figure) { flex: 2 1 400px; min-width: min(400px, 100%); }
#live img { width: 100%; border-radius: var(--block-radius); }
#layers > div, #detections > div, #live > div { padding: 0; }
#layers .players { display: flex; flex-wrap: wrap; gap: var(--layout-gap); }
#layers figure { flex: 1 1 200px; margin: 0; font-size: var(--text-sm); }
#layers svg { display: block; width: 100%; border-radius: var(--block-radius); }
#layers figure > div { display: flex; flex-wrap: wrap; gap: 4px; margin-top: 8px; }
#layers button { margin: 0; padding: 3px 9px; font-size: var(--text-sm); font-weight: 400;
  border: 1px solid var(--border-color-primary); border-radius: var(--button-small-radius);
  background: var(--button-secondary-background-fill); color: var(--button-secondary-text-color); }
#layers button.toggle { min-width: 5em; font-weight: 600; }
#detections .scroll { max-height: 420px; overflow-y: auto; }
#detections table { width: 100%; max-width: 480px; margin: 0; border-collapse: collapse;
  font-variant-numeric: tabular-nums; }
#detections table, #detections tr { border: 0; }
#detections th, #detections td { padding: 2px 6px; text-align: right; border: 0 solid var(--border-color-primary); }
#detections td { border-top-width: 1px; }
#detections th:first-child, #detections td:first-child { text-align: left; }
@media (max-width: 760px) { #detections .scroll { max-height: 8em; } }
footer .divider:last-child { display: none; }
"""


def build_page(catalogue: Callable[[], Sequence[ListedModel]]) -> gr.Blocks:
    """The page, for :func:`launch_page`.

    Args:
        catalogue: the models to choose from, the default first; asked whenever the page is loaded.
    """
    handlers = Handlers(Shelf(catalogue))
    with gr.Blocks(title='Try a model', analytics_enabled=False, delete_cache=(3600, 3600)) as page:
        gr.Markdown('# Try a model')
        parts: dict[str, Any] = {}
        with gr.Row(elem_id='work'):
            with gr.Column(elem_id='inputs'):
                _add_inputs(parts)
            with gr.Column(elem_id='outcome'):
                _add_outcomes(parts)
            with gr.Column(elem_id='switches'):
                _add_switches(parts)
        page.load(handlers.fill, None, [parts[name] for name in ('checkpoint', 'other', 'status')], **_PRIVATE)
        _connect_images(parts, handlers)
        _connect_webcam_and_video(parts, handlers)
        _connect_tabs(parts)
        _add_endpoints(handlers)
    return page


def launch_page(page: gr.Blocks, *, host: str, port: int, password: str | None = None) -> str:
    """Serve a page in the background; returns its address.

    Args:
        page: to serve.
        host: address to serve at.
        port: of it.
        password: that is asked for, with any name; None: none is.

    Raises:
        InputError: the port is taken, or the host isn't this machine's.
    """

    def knows(_name: str, word: str) -> bool:
        return hmac.compare_digest(word.encode(), (password or '').encode())

    try:
        _, address, _ = page.launch(
            server_name=host,
            server_port=port,
            auth=knows if password else None,
            auth_message='Any name will do; the password is that of `--password`.',
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            ssr_mode=False,
            show_error=True,
            max_file_size=LARGEST_UPLOAD,
            footer_links=['api'],
            theme=gr.themes.Default(font=['system-ui', 'sans-serif'], font_mono=['ui-monospace', 'monospace']),
            css=_STYLE,
        )
    except OSError as error:
        raise InputError(f'port {port} of {host} cannot be served ({error}); choose another with --port') from error
    return address


def _add_inputs(parts: dict[str, Any]) -> None:
    parts['checkpoint'] = gr.Dropdown(label='Model', elem_id='checkpoint')
    with gr.Tabs(elem_id='sources'):
        with gr.Tab('Image') as parts['image_tab']:
            parts['file'] = gr.File(label='Image', height=150, elem_id='image')
            parts['gallery'] = gr.Gallery(
                label='Examples of the validation set',
                show_label=False,
                columns=4,
                allow_preview=False,
                object_fit='cover',
                height='auto',
                buttons=[],
                visible=False,
                elem_id='examples',
            )
            parts['no_examples'] = gr.Markdown(elem_id='no-examples')
            parts['examples'], parts['example'] = gr.State([]), gr.State()
        with gr.Tab('Webcam') as parts['webcam_tab']:
            parts['webcam'] = gr.Image(
                sources=['webcam'], type='pil', format='jpeg', show_label=False, buttons=[], elem_id='webcam'
            )
        with gr.Tab('Video') as parts['video_tab']:
            parts['video'] = gr.File(label='Video', height=150, elem_id='video')
            parts['rate'] = gr.Slider(1, 30, 5, step=1, label='Frames a second to look at', buttons=[], elem_id='rate')
            with gr.Row():
                parts['detect'] = gr.Button('Detect', variant='primary', elem_id='detect')
                parts['stop'] = gr.Button('Stop', elem_id='stop')


def _add_outcomes(parts: dict[str, Any]) -> None:
    shown: dict[str, Any] = dict(format='png', interactive=False, buttons=['fullscreen'])
    with gr.Column() as parts['image_outcome']:
        parts['status'] = gr.Markdown(NO_IMAGE, elem_id='status')
        with gr.Row():
            parts['truth'] = gr.Image(visible=False, min_width=200, elem_id='truth', **shown)
            parts['first'] = gr.Image(visible=False, min_width=200, elem_id='result', **shown)
            parts['second'] = gr.Image(visible=False, min_width=200, elem_id='other-result', **shown)
            parts['layers'] = gr.HTML(visible=False, min_width=200, padding=False, elem_id='layers')
        with gr.Row():
            for name, label in (('image_file', 'image'), ('layers_file', 'animation'), ('json_file', 'JSON')):
                parts[name] = gr.DownloadButton(
                    f'Download {label}', size='sm', visible=False, min_width=120, elem_id=name.replace('_', '-')
                )
        parts['table'] = gr.HTML(padding=False, elem_id='detections')
    with gr.Column(visible=False) as parts['webcam_outcome']:
        parts['webcam_status'] = gr.Markdown(NO_FRAME, elem_id='webcam-status')
        parts['live'] = gr.HTML(padding=False, elem_id='live')
    with gr.Column(visible=False) as parts['video_outcome']:
        parts['video_status'] = gr.Markdown(NO_VIDEO, elem_id='video-status')
        parts['annotated'] = gr.Video(visible=False, show_label=False, autoplay=True, loop=True, elem_id='annotated')
        parts['video_json'] = gr.DownloadButton('Download JSON', size='sm', visible=False, elem_id='video-json')


def _add_switches(parts: dict[str, Any]) -> None:
    parts['threshold'] = gr.Slider(0, 1, THRESHOLD, step=0.01, label='Score threshold', buttons=[], elem_id='threshold')
    with gr.Column() as parts['image_switches']:
        about = 'the encoder, a decoder layer, or the last one: the result'
        parts['other'] = gr.Dropdown([ALONE], value=ALONE, label='Second model, beside it', elem_id='other')
        parts['stage'] = gr.Radio([RESULT], value=RESULT, label='Boxes of', info=about, elem_id='stage')
        parts['with_tokens'] = gr.Checkbox(label='Tokens that became queries', elem_id='tokens')
        parts['with_truth'] = gr.Checkbox(label='Ground truth beside it (of examples)', elem_id='with-truth')


def _connect_images(parts: dict[str, Any], handlers: Handlers) -> None:
    inputs = ['example', 'checkpoint', 'other', 'threshold', 'stage', 'with_tokens', 'with_truth']
    shows: dict[str, Any] = dict(
        fn=handlers.show,
        inputs=[parts[name] for name in inputs],
        outputs=[parts[name] for name in SHOWN],
        show_progress_on=parts['first'],
        **_PRIVATE,
    )
    settings = [parts[name] for name in ('with_tokens', 'with_truth', 'stage', 'other', 'checkpoint')]
    gr.on([parts['threshold'].change, *(setting.input for setting in settings)], trigger_mode='always_last', **shows)
    chosen = [parts['example'], parts['gallery']]
    gr.on([parts['file'].upload, parts['file'].clear], handlers.upload, parts['file'], chosen, **_PRIVATE).then(**shows)
    parts['gallery'].select(handlers.pick, parts['examples'], [parts['example'], parts['file']], **_PRIVATE).then(
        **shows
    )
    listed = [parts[name] for name in ('gallery', 'examples', 'no_examples')]
    parts['checkpoint'].change(handlers.list_examples, parts['checkpoint'], listed, **_PRIVATE)


def _connect_webcam_and_video(parts: dict[str, Any], handlers: Handlers) -> None:
    parts['webcam'].stream(
        handlers.watch,
        [parts[name] for name in ('webcam', 'checkpoint', 'threshold')],
        [parts['live'], parts['webcam_status']],
        stream_every=FRAME_EVERY_S,
        time_limit=WEBCAM_S,
        concurrency_limit=WEBCAMS,
        show_progress='hidden',
        **_PRIVATE,
    )
    running = parts['detect'].click(
        handlers.annotate,
        [parts[name] for name in ('video', 'checkpoint', 'threshold', 'rate')],
        [parts[name] for name in ('video_status', 'annotated', 'video_json')],
        show_progress_on=parts['video_status'],
        **_PRIVATE,
    )
    parts['stop'].click(lambda: 'Stopped.', None, parts['video_status'], cancels=[running], **_PRIVATE)


def _connect_tabs(parts: dict[str, Any]) -> None:
    """Beside each source stands its own outcome."""
    sources = ('image', 'webcam', 'video')
    columns = [*(parts[f'{source}_outcome'] for source in sources), parts['image_switches']]
    for source in sources:
        shown = [gr.Column(visible=source == other) for other in (*sources, 'image')]
        parts[f'{source}_tab'].select(lambda shown=shown: shown, None, columns, show_progress='hidden', **_PRIVATE)


def _add_endpoints(handlers: Handlers) -> None:
    """What a program can call; the components are not seen."""
    with gr.Row(visible=False):
        image, model, threshold = (
            gr.File(label='image'),
            gr.Textbox(label='model'),
            gr.Number(THRESHOLD, label='threshold'),
        )
        answer = gr.JSON(label='detections')
        gr.Button().click(handlers.detect, [image, model, threshold], answer, api_name='detect')
        gr.Button().click(handlers.models, None, answer, api_name='models')
