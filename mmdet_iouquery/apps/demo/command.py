"""What ``iouquery demo`` does."""

from __future__ import annotations

import argparse
import ipaddress
import secrets
from collections.abc import Sequence

from ...errors import InputError
from .arguments import parser
from .catalogue import ListedModel, found_models, named_model


def demo(arguments: Sequence[str] | None = None) -> None:
    """Serve the page until it is stopped.

    Args:
        arguments: of the command line.

    Raises:
        InputError: see :func:`execute`.
    """
    execute(parser().parse_args(arguments))


def execute(args: argparse.Namespace) -> None:
    """Serve the page until it is stopped.

    Args:
        args: of :func:`~mmdet_iouquery.apps.demo.arguments.parser`.

    Raises:
        InputError: a file isn't there, gradio isn't installed, or the port is taken.
    """
    if args.config and not args.checkpoint:
        raise InputError('--config names the config of a checkpoint; name that too, with --checkpoint')
    named = [named_model(args.checkpoint, args.config)] if args.checkpoint else []
    password = secrets.token_urlsafe(9) if args.password == '' else args.password

    def catalogue() -> list[ListedModel]:
        return [*named, *found_models(args.work_dirs)]

    try:
        from .page import build_page, launch_page
    except ImportError as error:
        raise InputError(f"the page needs gradio ({error}): make demo, or pip install 'gradio>=6'") from error
    page = build_page(catalogue)
    address = launch_page(page, host=args.host, port=args.port, password=password)
    if args.password == '':
        print(f'the password is {password}, the name any')
    if not is_loopback(args.host):
        print(reach(password))
    print(f'the page is at {address}; Ctrl-C ends it', flush=True)
    page.block_thread()


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what is served at an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == 'localhost'


def reach(password: str | None) -> str:
    """Who can use a page that is served to other machines, and what they can do."""
    visitor = 'whoever reaches this machine and knows the password' if password else 'whoever reaches this machine'
    remedy = '' if password else '; --password asks for one'
    return (
        f'{visitor} over the network can use the page: see the validation images, run the models on images of their own'
        f'{remedy}. The connection is not encrypted, and browsers give no webcam to a page of another machine without '
        'HTTPS: put a proxy with a certificate before it where that matters'
    )
