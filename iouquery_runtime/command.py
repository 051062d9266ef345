"""``python -m iouquery_runtime``: detect, draw and write down."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from .detector import Detector
from .errors import InputError
from .files import whole_file
from .results import DRAWN_BY, FIGURES, Result, was_drawn

SUFFIXES = {'.bmp', '.gif', '.jp2', '.jpeg', '.jpg', '.png', '.ppm', '.tif', '.tiff', '.webp'}
"""What is taken for an image in a folder; a file that is named may have any other."""
SCORE_THR = 0.3


class Terminated(BaseException):
    """SIGTERM came."""


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The arguments; argparse leaves with status 2 where they are wrong."""
    parser = argparse.ArgumentParser(
        prog='python -m iouquery_runtime',
        description='Detect objects with a file that tools/export.py has written. Prints a line for each image; the '
        'exit status is 2 where one could not be read.',
    )
    parser.add_argument('model', help='an .onnx file, or an .xml file of OpenVINO')
    parser.add_argument('images', nargs='+', help='image files, and folders of such')
    parser.add_argument('--out', metavar='DIR', help='draw the detections into images there')
    parser.add_argument('--json', metavar='FILE', help='write the detections there')
    parser.add_argument(
        '--score-thr',
        type=float,
        metavar='X',
        help=f'show what scores above X, in [0, 1) (that of the model file, or {SCORE_THR} where it has none)',
    )
    parser.add_argument('--threads', type=int, metavar='N', help='threads to use (as many as there are cores)')
    return parser.parse_args(argv)


def detect(args: argparse.Namespace) -> int:
    """The exit status: 0, or 2 where an image could not be read; the others are done all the same.

    Raises:
        InputError: before anything is done, for what is missing or in the way.
    """
    images = _image_files(args.images)
    figures = _figures(images, Path(args.out)) if args.out else {}
    json_file = Path(args.json) if args.json else None
    if json_file is not None and json_file.exists() and not _was_written(json_file):
        raise InputError(f'{json_file} exists and was not written by this command; name another file with --json')
    detector = Detector(args.model, threads=args.threads)
    if args.out:
        _make(Path(args.out))
    score_thr = args.score_thr
    if score_thr is None and not detector.metadata.score_thr:
        score_thr = SCORE_THR
    results = []
    for image in images:
        (result,) = detector(image, score_thr=score_thr, on_error='skip')
        results.append(result)
        if result.error is not None:
            print(f'error: {result.error}', file=sys.stderr)
            continue
        print(f'{image} {result.width}x{result.height}: {_summary(result)}', flush=True)
        if image in figures:
            result.draw(figures[image])
    if json_file is not None:
        content = dict(written_by=DRAWN_BY, model=args.model, images=[result.to_dict() for result in results])
        with whole_file(json_file) as temporary:
            temporary.write_text(json.dumps(content, indent=1, allow_nan=False) + '\n', encoding='utf-8')
    return 2 if any(result.error is not None for result in results) else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line: 2 for bad input, which is said in a sentence; 128 + n where signal n stopped it."""
    args = parse_args(argv)
    try:
        with sigterm_raises():
            return detect(args)
    except InputError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    except (KeyboardInterrupt, Terminated) as stop:
        signum = signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT
        print(f'stopped by {signum.name}; every file written so far is whole', file=sys.stderr)
        return 128 + signum


def _image_files(given: Sequence[str]) -> list[Path]:
    """The files named, and the images in the folders named, each once."""
    images: dict[Path, None] = {}
    for name in given:
        path = Path(name)
        if path.is_dir():
            inside = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES and file.is_file())
            if not inside:
                raise InputError(f'the folder {path} has no images ({", ".join(sorted(SUFFIXES))})')
            images.update(dict.fromkeys(inside))
        elif path.is_file():
            images[path] = None
        else:
            raise InputError(f'there is no file or folder {path}')
    return [*images]


def _figures(images: Sequence[Path], folder: Path) -> dict[Path, Path]:
    """Where to draw each image: under its own name, with .png added for formats that figures are not written in.

    Raises:
        InputError: two images would have one figure, or a file is in the way that is none.
    """
    figures: dict[Path, Path] = {}
    taken: dict[Path, Path] = {}
    for image in images:
        figure = folder / (image.name if image.suffix.lower() in FIGURES else f'{image.name}.png')
        if figure in taken:
            raise InputError(f'{taken[figure]} and {image} would both be drawn as {figure}; call this once for each')
        if figure.exists() and figure.samefile(image):
            raise InputError(f'{image} would be drawn over itself; name another folder with --out')
        if figure.exists() and not was_drawn(figure):
            raise InputError(f'{figure} exists and was not drawn by this command; name another folder with --out')
        figures[image], taken[figure] = figure, image
    return figures


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f'the folder {folder} cannot be made: {error.strerror or error}') from error


def _was_written(json_file: Path) -> bool:
    if not json_file.is_file():  # a folder, or a device, which may never end
        return False
    try:
        content = json.loads(json_file.read_text(encoding='utf-8'))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.get('written_by') == DRAWN_BY


def _summary(result: Result) -> str:
    """How many of each class, the most numerous first."""
    counts = Counter(result.names)
    return ', '.join(f'{count} {name}' for name, count in counts.most_common()) or 'nothing'


@contextmanager
def sigterm_raises() -> Iterator[None]:
    """SIGTERM raises :class:`Terminated`, so that what is half written is removed."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python calls handlers in the main thread only
        return

    def stop(_signum: int, _frame: object) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
