"""``iouquery completion SHELL``: a script by which the shell completes commands, options, configs and files."""

from __future__ import annotations

import argparse

from iouquery_runtime.errors import optional

from ..command_line import CONFIG_FUNCTION
from ..config_files import config_names, short_name
from .commands import COMMANDS

SHELLS = ('bash', 'zsh')


def parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The arguments."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description='Print a script by which the shell completes commands, options, names of configs and files. '
        'For bash: eval "$(iouquery completion bash)" in ~/.bashrc; for zsh: iouquery completion zsh > '
        '"${fpath[1]}/_iouquery".',
    )
    parser.add_argument('shell', choices=SHELLS)
    return parser


def execute(args: argparse.Namespace) -> int:
    """Print the script.

    Raises:
        InputError: shtab, which writes it, is not installed.
    """
    shtab = optional('shtab', 'completion', "'mmdet-iouquery[completion]'")
    print(shtab.complete(whole_parser(), args.shell, preamble=_preamble()))
    return 0


def whole_parser() -> argparse.ArgumentParser:
    """All commands as one parser."""
    whole = argparse.ArgumentParser(prog='iouquery', description='RT-DETR and its kin for MMDetection 3.x.')
    whole.add_argument('--version', action='store_true', help='print the version')
    commands = whole.add_subparsers(dest='command')
    for name, command in COMMANDS.items():
        parents = [command.parser_for(f'iouquery {name}')] if command.parser else []
        commands.add_parser(name, help=command.summary, parents=parents, add_help=not parents)
    return whole


def _preamble() -> dict[str, str]:
    """A function for each shell that gives the names of configs, and files."""
    paths = config_names()
    names = ' '.join(dict.fromkeys(short_name(path, paths) for path in paths))
    return {
        'bash': f'{CONFIG_FUNCTION}() {{ compgen -W "{names}" -- "$1"; compgen -f -- "$1"; }}',
        'zsh': f'{CONFIG_FUNCTION}() {{ _alternative "configs:config:({names})" "files:file:_files" }}',
    }
