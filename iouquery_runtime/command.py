"""``python -m iouquery_runtime``: detect, draw and write down."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from .detector import Detector
from .errors import InputError
from .files import whole_file
from .results import DRAWN_BY, FIGURES, Result, was_drawn

SUFFIXES = {'.bmp', '.gif', '.jp2', '.jpeg', '.jpg', '.png', '.ppm', '.tif', '.tiff', '.webp'}
"""What is taken for an image in a folder; a file that is named may have any other."""
SCORE_THR = 0.3
STDOUT = ('-', '/dev/stdout')
"""What --json calls the standard output."""


Detect = Callable[[Path], Result]
"""Gives the result of an image file; where it cannot be read, one with an error."""


class Terminated(BaseException):
    """SIGTERM came."""


def parser(prog: str, model: str) -> argparse.ArgumentParser:
    """The command line; ``model`` describes its first argument."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description='Detect objects in images. Prints a line for each; the exit status is 2 where one could not be '
        'read.',
    )
    parser.add_argument('model', help=model)
    parser.add_argument('images', nargs='+', help='image files, and folders with such in them or below')
    parser.add_argument('--out', metavar='DIR', help='draw the detections into images there')
    parser.add_argument(
        '--json',
        metavar='FILE',
        help='write the detections there; -: to standard output, and the lines to standard error',
    )
    parser.add_argument(
        '--score-thr',
        type=float,
        metavar='X',
        help=f'show what scores above X, in [0, 1) (that of the model file, or {SCORE_THR} where it has none)',
    )
    parser.add_argument(
        '--image-size',
        nargs=2,
        type=int,
        metavar=('HEIGHT', 'WIDTH'),
        help='px that images are resized to, for a file exported with --dynamic-size (those of the file)',
    )
    parser.add_argument('--threads', type=int, metavar='N', help='threads to use (one a core, the most)')
    return parser


def exported(args: argparse.Namespace) -> Detect:
    """The file of a command line, opened."""
    detector = Detector(args.model, threads=args.threads, image_size=args.image_size)
    score_thr = args.score_thr
    if score_thr is None and not detector.metadata.score_thr:
        score_thr = SCORE_THR
    return lambda image: detector(image, score_thr=score_thr, on_error='skip')


def detect(args: argparse.Namespace, opened: Callable[[argparse.Namespace], Detect] = exported) -> int:
    """The exit status: 0, or 2 where an image could not be read; the others are done all the same.

    Args:
        args: of :func:`parser`.
        opened: gives what is called with each image.

    Raises:
        InputError: before anything is done, for what is missing or in the way.
    """
    if args.score_thr is not None and not 0 <= args.score_thr < 1:
        raise InputError(f'--score-thr {args.score_thr}: name a number in [0, 1)')
    images = _image_files(args.images, None if args.out is None else Path(args.out))
    figures = _figures(images, Path(args.out)) if args.out else {}
    lines_to = sys.stderr if args.json in STDOUT else sys.stdout
    if args.json and args.json not in STDOUT and Path(args.json).exists() and not _was_written(Path(args.json)):
        raise InputError(f'{args.json} exists and was not written by this command; name another file with --json')
    detector = opened(args)
    if args.out:
        _make(Path(args.out))
    results = []
    for image in images:
        result = detector(image)
        results.append(result)
        if result.error is not None:
            print(f'error: {result.error}', file=sys.stderr)
            continue
        print(f'{image} {result.width}x{result.height}: {_summary(result)}', file=lines_to, flush=True)
        if image in figures:
            figures[image].parent.mkdir(parents=True, exist_ok=True)
            result.draw(figures[image])
    if args.json:
        _write_down(args, results)
    return 2 if any(result.error is not None for result in results) else 0


def _write_down(args: argparse.Namespace, results: Sequence[Result]) -> None:
    content = dict(written_by=DRAWN_BY, model=args.model, images=[result.to_dict() for result in results])
    text = json.dumps(content, indent=1, allow_nan=False)
    if args.json in STDOUT:
        print(text, flush=True)
        return
    with whole_file(Path(args.json)) as temporary:
        temporary.write_text(text + '\n', encoding='utf-8')


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line: 2 for bad input, which is said in a sentence; 128 + n where signal n stopped it.

    Where nobody reads its lines any more, as after ``| head``, it ends as by SIGPIPE, without a word.
    """
    of_file = 'an .onnx file that `iouquery export` has written, or an .xml file of OpenVINO'
    return run(parser('python -m iouquery_runtime', of_file).parse_args(argv))


def run(args: argparse.Namespace, opened: Callable[[argparse.Namespace], Detect] = exported) -> int:
    """:func:`detect`, with what goes wrong told as :func:`main` says."""
    try:
        with sigterm_raises():
            return detect(args, opened)
    except InputError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    except BrokenPipeError:
        with suppress(OSError, ValueError):  # for what Python flushes at its end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # 128 + SIGPIPE, which Windows does not know
    except OSError as error:  # a folder that is not to be entered, say, or a full disk behind the standard output
        where, why = error.filename or 'the standard output', error.strerror or error
        print(f'error: {where} cannot be read or written: {why}', file=sys.stderr)
        return 2
    except (KeyboardInterrupt, Terminated) as stop:
        signum = signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT
        print(f'stopped by {signum.name}; every file written so far is whole', file=sys.stderr)
        return 128 + signum


def _image_files(given: Sequence[str], out: Path | None) -> dict[Path, Path]:
    """The files named, and the images in and below the folders named but for ``out``, each with its path from there."""
    images: dict[Path, Path] = {}
    for name in given:
        path = Path(name)
        if path.is_dir():
            inside = sorted(_images_below(path, out))
            if not inside:
                raise InputError(
                    f'the folder {path} has no images ({", ".join(sorted(SUFFIXES))}); name a folder with images of '
                    'these kinds'
                )
            images.update((file, file.relative_to(path)) for file in inside)
        elif path.is_file():
            images.setdefault(path, Path(path.name))
        else:
            raise InputError(f'there is no file or folder {path}; correct the path')
    return images


def _images_below(folder: Path, out: Path | None) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            if out is None or path.resolve() != out.resolve():
                yield from _images_below(path, out)
        elif path.suffix.lower() in SUFFIXES and path.is_file():
            yield path


def _figures(images: Mapping[Path, Path], folder: Path) -> dict[Path, Path]:
    """Where to draw each image: under its own name, with .png added for formats that figures are not written in.

    Raises:
        InputError: two images would have one figure, or a file is in the way that is none.
    """
    figures: dict[Path, Path] = {}
    taken: dict[Path, Path] = {}
    for image, name in images.items():
        figure = folder / (name if name.suffix.lower() in FIGURES else f'{name}.png')
        if figure in taken:
            raise InputError(
                f'{taken[figure]} and {image} would both be drawn as {figure}; detect each with an --out of its own'
            )
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
        raise InputError(
            f'the folder {folder} cannot be made: {error.strerror or error}; name another with --out'
        ) from error


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
