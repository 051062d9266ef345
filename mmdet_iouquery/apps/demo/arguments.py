"""The arguments of ``iouquery demo``."""

from __future__ import annotations

import argparse


def parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The parser of the command line.

    Args:
        prog: name of the command in its help; None: the script's.
    """
    parser = argparse.ArgumentParser(prog=prog, description='A page to try a model on images, in the browser.')
    parser.add_argument(
        '--checkpoint',
        metavar='FILE',
        help='or a work folder, or an exported .onnx or .xml file; chosen at first (default: the newest of the '
        'quickstart)',
    )
    parser.add_argument(
        '--config', metavar='CONFIG', help="its config file, or a shipped one's name (default: that beside it)"
    )
    parser.add_argument(
        '--work-dirs', default='work_dirs', metavar='DIR', help='folder of runs to choose from (default: work_dirs)'
    )
    parser.add_argument(
        '--host',
        default='127.0.0.1',
        help='address to serve at (default: 127.0.0.1, this machine only; 0.0.0.0: whoever reaches this machine)',
    )
    parser.add_argument('--port', type=int, default=7860, help='(default: 7860)')
    parser.add_argument(
        '--password',
        nargs='?',
        const='',
        metavar='WORD',
        help='let in who knows it, under any name; without a word, one is made up and printed',
    )
    return parser
