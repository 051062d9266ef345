"""The command line of ``iouquery configs``."""

from __future__ import annotations

import argparse

from ...command_line import complete_configs


def parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The arguments."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description='List the configs that came with the package, by names that every command takes.',
    )
    parser.add_argument('filter', nargs='?', default='', metavar='FILTER', help='only names with this in them')
    parser.add_argument('--all', action='store_true', help='also those of which nobody has reported an AP')
    parser.add_argument('--json', action='store_true', help='print them as JSON, also those without an AP')
    complete_configs(
        parser.add_argument('--show', metavar='NAME', help='print a whole config instead, with what its bases bring')
    )
    return parser
