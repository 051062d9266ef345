"""The command line of ``tools/demo.py``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ...errors import InputError
from .session import Found, found_checkpoints, named_checkpoint


def demo(arguments: Sequence[str] | None = None) -> None:
    """Serve the page until it is stopped.

    Args:
        arguments: of the command line.

    Raises:
        InputError: a file isn't there, gradio isn't installed, or the port is taken.
    """
    args = _parser().parse_args(arguments)
    if args.config and not args.checkpoint:
        raise InputError('--config names the config of a checkpoint; name that too, with --checkpoint')
    named = [named_checkpoint(args.checkpoint, args.config)] if args.checkpoint else []

    def catalogue() -> list[Found]:
        return [*named, *found_checkpoints(args.work_dirs)]

    try:
        from .page import build_page, launch_page
    except ImportError as error:
        raise InputError(f"the page needs gradio ({error}): make demo, or pip install 'gradio>=6'") from error
    page = build_page(catalogue)
    print(f'the page is at {launch_page(page, host=args.host, port=args.port)}; Ctrl-C ends it', flush=True)
    page.block_thread()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description='A page to try a model on images, in the browser.')
    parser.add_argument('--checkpoint', metavar='FILE', help='chosen at first (default: the newest of the quickstart)')
    parser.add_argument(
        '--config', metavar='CONFIG', help="its config file, or a shipped one's name (default: that beside it)"
    )
    parser.add_argument(
        '--work-dirs', default='work_dirs', metavar='DIR', help='folder of runs to choose from (default: work_dirs)'
    )
    parser.add_argument(
        '--host', default='127.0.0.1', help='address to serve at (default: 127.0.0.1, this machine only)'
    )
    parser.add_argument('--port', type=int, default=7860, help='(default: 7860)')
    return parser
