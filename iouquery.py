"""The command ``iouquery``; ``python -m iouquery`` and ``python -m mmdet_iouquery`` are the same."""

from __future__ import annotations

import os
import signal
import sys


def main(command: str | None = None) -> int:
    """Run the command line and return the exit status; ``command`` is what a script in ``tools/`` stands for."""
    os.environ.setdefault('MMDET_IOUQUERY_REGISTER', 'later')  # its arguments are read before anything heavy is imported
    try:
        from mmdet_iouquery.main import main as run

        return run(command=command)
    except KeyboardInterrupt:
        print('stopped by SIGINT', file=sys.stderr)
        return 128 + signal.SIGINT


if '__mp_main__' in sys.modules:  # a process spawned from the command: what it is sent may need mmdet, and ours before it
    import mmdet_iouquery  # noqa: F401

if __name__ == '__main__':
    sys.exit(main())
