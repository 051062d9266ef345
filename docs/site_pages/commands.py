"""A page with the ``--help`` of every command and tool, as it is printed."""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from unittest import mock

from mmdet_iouquery.apps.commands import COMMANDS
from mmdet_iouquery.main import NAME, overview

from .links import ROOT, file_link

WIDTH = 88
TEXT = f"""# Every command's help

What `{NAME} COMMAND --help` prints, in {WIDTH} columns. What the commands share is on [a page](../commands.md).
"""


def pages() -> dict[str, str]:
    """The page by its path on the site."""
    with mock.patch.dict(os.environ, COLUMNS=str(WIDTH)):
        sections = [*_commands(), *_tools()]
    return {'reference/commands.md': '\n'.join([TEXT, _block(overview()), *sections])}


def _commands() -> Iterator[str]:
    for name, command in COMMANDS.items():
        title = f'## {NAME} {name}\n\n'
        if not command.parser:  # the words are another program's
            yield f'{title}{command.summary[0].upper()}{command.summary[1:]}.\n\n' + _block(
                f'usage: {NAME} {name} TOOL ARGS\n\nexample:\n  {NAME} {name} {command.example}'
            )
            continue
        parser = command.parser_for(f'{NAME} {name}')
        yield title + '\n'.join(map(_block, _helps(parser)))


def _helps(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Its help, and that of each command below it."""
    yield parser.format_help()
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from _helps(below)


def _tools() -> Iterator[str]:
    """Those of ``tools`` that are no commands."""
    yield f'## Other tools\n\nFor a checkout, in [tools]({file_link("tools")}).\n'
    of_commands = {command.tool for command in COMMANDS.values()}
    environment = dict(os.environ, MMDET_IOUQUERY_REGISTER='later', PYTHONPATH=str(ROOT))
    for path in sorted((ROOT / 'tools').iterdir()):
        name = path.relative_to(ROOT).as_posix()
        if path.suffix == '.py' and path.name not in of_commands:
            command = [sys.executable, str(path), '--help']
            done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
            yield f'### {name}\n\n' + _block(done.stdout)
        elif path.suffix == '.sh':
            lines = path.read_text(encoding='utf-8').splitlines()[1:]
            comment = [line[2:] for line in itertools.takewhile(lambda line: line.startswith('#'), lines)]
            yield f'### {name}\n\n' + _block('\n'.join(comment))


def _block(text: str) -> str:
    return f'```text\n{text.rstrip()}\n```\n'
