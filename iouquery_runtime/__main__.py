"""``python -m iouquery_runtime MODEL IMAGE [IMAGE ...] [--out DIR] [--json FILE]``."""

from __future__ import annotations

import io
import signal
import sys


def run() -> int:
    """The exit status; Ctrl-C ends in a sentence from the start, while NumPy and Pillow are imported."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors='replace')  # names of classes may have letters that a terminal lacks
    try:
        from .command import main

        return main()
    except KeyboardInterrupt:
        print('stopped by SIGINT', file=sys.stderr)
        return 128 + signal.SIGINT


if __name__ == '__main__':
    sys.exit(run())
