"""What ``tools/demo.py`` runs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ...errors import InputError
from .arguments import parser
from .session import Found, found_checkpoints, named_checkpoint


def demo(arguments: Sequence[str] | None = None) -> None:
    """What :func:`execute` does, with the arguments of a command line."""
    execute(parser().parse_args(arguments))


def execute(args: argparse.Namespace) -> None:
    """Serve the page until it is stopped.

    Raises:
        InputError: a file isn't there, gradio isn't installed, or the port is taken.
    """
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
