"""What the page answers to what is done on it."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gradio as gr
from PIL import Image

from ...errors import InputError
from .animation import data_uri, layer_animation, player
from .examples import Example, thumbnail, validation_examples
from .image_results import ImageResult, annotate_video, as_json, draw_truth, show, side_by_side
from .model import Shelf
from .overlay import RESULT
from .video import SUFFIX, Video

NO_CHECKPOINT = (
    'There is no checkpoint yet. Run `make quickstart`, which trains a small model, and load this page again.'
)
NO_IMAGE = 'Drop an image, or click an example, to see what the model finds in it.'
NO_VIDEO = 'Drop a video, then press *Detect*.'
NO_FRAME = 'Click *Access Webcam*, then *Record*: what the model finds is shown here as it comes.'
ALONE = 'no other'
"""Choice of the second model: there is none."""
ALL = 'all, one after another'
"""Choice of the stage: an animation."""
SHOWN = (
    'status',
    'truth',
    'first',
    'second',
    'layers',
    'table',
    'stage',
    'with_truth',
    'image_file',
    'json_file',
    'layers_file',
)
"""The components that :meth:`Handlers.show` gives, in its order."""


_PROGRESS = gr.Progress()  # as a default, by which Gradio knows that one is wanted


class Handlers:
    """Calls of the page's events; each gives what components show then.

    Args:
        shelf: the models to choose from.
    """

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    def fill(self) -> tuple[Any, ...]:
        """Choices of both models, and the status, when the page is loaded."""
        names = self._shelf.names()
        chosen = gr.Dropdown(names, value=names[0] if names else None)
        return chosen, gr.Dropdown([ALONE, *names], value=ALONE), NO_IMAGE if names else NO_CHECKPOINT

    def list_examples(self, name: str | None) -> tuple[Any, ...]:
        """The gallery, the examples in it, and why there are none."""
        config = self._shelf.config(name) if name else None
        if config is None:
            return gr.Gallery([], visible=False), [], ''
        try:
            examples = validation_examples(config)
        except InputError as error:
            return gr.Gallery([], visible=False), [], f'No examples: {html.escape(str(error), quote=False)}.'
        thumbnails = [thumbnail(example.path) for example in examples]
        return gr.Gallery(thumbnails, visible=True, selected_index=None), examples, ''

    def pick(self, examples: list[Example], event: gr.SelectData) -> tuple[Example, None]:
        """The example that was clicked, in the place of an uploaded file."""
        return examples[event.index], None

    def upload(self, path: str | None) -> tuple[Example | None, Any]:
        """The uploaded file, in the place of an example."""
        return None if path is None else Example(Path(path)), gr.Gallery(selected_index=None)

    def show(
        self,
        example: Example | None,
        name: str | None,
        other: str | None,
        threshold: float,
        stage: str,
        with_tokens: bool,
        with_truth: bool,
    ) -> Iterator[list[Any]]:
        """All that is shown of an image, by :data:`SHOWN`."""
        if name is None or example is None:
            yield _nothing(NO_CHECKPOINT if name is None else NO_IMAGE)
            return
        chosen = [name] if other in (None, ALONE, name) else [name, other]
        try:
            results = [show(model, self._shelf.model(model), example, threshold, stage) for model in chosen]
        except InputError as error:
            yield _nothing(_refusal(error))
            return
        truth = draw_truth(example, results[0].look.image) if with_truth and example.objects is not None else None
        moves = stage == ALL and any(result.look.trace for result in results)
        with TemporaryDirectory() as folder:  # Gradio has copied what is in it when it goes on here
            stem = Path(folder) / f'{example.path.stem}-detections'
            values = {
                'status': _status(results, threshold, with_tokens),
                'truth': _panel(truth, 'ground truth'),
                'table': _tables(results),
                'stage': _stage_choice(results, stage),
                'with_truth': gr.Checkbox(interactive=example.objects is not None),
                'json_file': _file(stem.with_suffix('.json'), as_json(results, threshold, example)),
                **(
                    _animation(results, threshold, stem.with_suffix('.svg'))
                    if moves
                    else _panels(results, truth, with_tokens, stem.with_suffix('.png'))
                ),
            }
            yield [values[name] for name in SHOWN]

    def watch(self, frame: Image.Image | None, name: str | None, threshold: float) -> tuple[str, str]:
        """A frame of the webcam with what the first model finds, and how much it is."""
        if frame is None or name is None:
            return '', NO_CHECKPOINT if name is None else NO_FRAME
        try:
            result = show(name, self._shelf.model(name), frame, threshold)
        except InputError as error:
            return '', _refusal(error)
        return f'<img alt="the webcam" src="{data_uri(result.draw())}">', result.sentence(threshold)

    def annotate(
        self, path: str | None, name: str | None, threshold: float, rate: float, progress: Any = _PROGRESS
    ) -> Iterator[tuple[Any, ...]]:
        """Status, video and JSON of an uploaded video; it takes long and can be cancelled."""
        nothing = gr.Video(None, visible=False), gr.DownloadButton(visible=False)
        if path is None or name is None:
            yield NO_CHECKPOINT if name is None else NO_VIDEO, *nothing
            return
        with TemporaryDirectory() as folder:
            try:
                video, model = Video(path, rate), self._shelf.model(name)
                out = Path(folder) / f'{Path(path).stem}{SUFFIX}'
                frames = annotate_video(
                    video,
                    out,
                    lambda image: show(name, model, image, threshold),
                    lambda done: progress((done, video.count), unit='frames'),
                )
            except InputError as error:
                yield _refusal(error), *nothing
                return
            count = sum(len(frame['detections']) for frame in frames)
            record = dict(video=Path(path).name, model=name, score_threshold=threshold, frames=frames)
            yield (
                f'**{count} detections in {len(frames)} frames**, {video.rate:.3g} a second, score at least '
                f'{threshold:.2f}.',
                gr.Video(str(out), visible=True),
                _file(out.with_suffix('.json'), record),
            )

    def detect(self, image: str, model: str | None = None, threshold: float = 0.5) -> dict[str, Any]:
        """The detections of an image.

        Args:
            image: the file.
            model: one of the names that /models gives; None: the first.
            threshold: the lowest score, in [0, 1].
        """
        names = self._shelf.names()
        try:
            if not names:
                raise InputError('there is no model; train one, or name a file with --checkpoint')
            if not 0 <= threshold <= 1:
                raise InputError(f'threshold must lie in [0, 1], got {threshold}')
            name = model or names[0]
            example = Example(Path(image))
            return as_json([show(name, self._shelf.model(name), example, threshold)], threshold, example)
        except InputError as error:
            raise gr.Error(str(error), print_exception=False) from error

    def models(self) -> list[str]:
        """Names of the models that /detect takes, the default first."""
        return self._shelf.names()


def _nothing(status: str) -> list[Any]:
    """A sentence, and nothing else."""
    values: dict[str, Any] = {
        'status': status,
        **dict.fromkeys(('truth', 'first', 'second'), _panel(None)),
        'layers': gr.HTML('', visible=False),
        'table': '',
        **dict.fromkeys(('image_file', 'json_file', 'layers_file'), gr.DownloadButton(visible=False)),
    }
    return [values.get(name, gr.skip()) for name in SHOWN]


def _panels(results: Sequence[ImageResult], truth: Image.Image | None, with_tokens: bool, file: Path) -> dict[str, Any]:
    """A drawing for each model, and all as one file."""
    drawings = [result.draw(with_tokens=with_tokens) for result in results]
    labels = [result.model if result.stage == RESULT else f'{result.model}, {result.stage}' for result in results]
    side_by_side([*([truth] if truth else []), *drawings]).save(file)
    panels = [*map(_panel, drawings, labels), _panel(None)]
    return {
        'first': panels[0],
        'second': panels[1],
        'layers': gr.HTML('', visible=False),
        'image_file': gr.DownloadButton(value=str(file), visible=True),
        'layers_file': gr.DownloadButton(visible=False),
    }


def _animation(results: Sequence[ImageResult], threshold: float, file: Path) -> dict[str, Any]:
    """The animations of all models that tell of their layers, and the first one's file."""
    moving = [result for result in results if result.look.trace]
    file.write_text(layer_animation(moving[0].look, threshold), encoding='utf-8')
    figures = ''.join(player(result.look, threshold, result.model if len(results) > 1 else '') for result in moving)
    return {
        'first': _panel(None),
        'second': _panel(None),
        'layers': gr.HTML(f'<div class="players">{figures}</div>', visible=True),
        'image_file': gr.DownloadButton(visible=False),
        'layers_file': gr.DownloadButton(value=str(file), visible=True),
    }


def _stage_choice(results: Sequence[ImageResult], stage: str) -> Any:
    """The stages of the models; one that stands is not sent back, as that would undo a choice made since."""
    names = [*dict.fromkeys(name for result in results for name in result.look.stages if name != RESULT), RESULT]
    if any(result.look.trace for result in results):
        names.append(ALL)
    return gr.Radio(names) if stage in names else gr.Radio(names, value=RESULT)


def _panel(image: Image.Image | None, label: str = '') -> Any:
    return gr.Image(image, label=label, visible=image is not None)


def _file(path: Path, content: Any) -> Any:
    path.write_text(json.dumps(content, indent=1), encoding='utf-8')
    return gr.DownloadButton(value=str(path), visible=True)


def _status(results: Sequence[ImageResult], threshold: float, with_tokens: bool) -> str:
    lines = []
    for result in results:
        model_name = f'{html.escape(result.model)}: ' if len(results) > 1 else ''
        lines.append(f'{model_name}{result.sentence(threshold)}')
    remarks = dict.fromkeys(result.remark(with_tokens=with_tokens) for result in results)
    return '\n\n'.join([*lines, *remarks])


def _tables(results: Sequence[ImageResult]) -> str:
    if len(results) == 1:
        return results[0].table()
    return ''.join(f'<h4>{html.escape(result.model)}</h4>{result.table()}' for result in results)


def _refusal(error: InputError) -> str:
    return f'**{html.escape(str(error), quote=False)}**'
