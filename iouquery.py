"""The command ``iouquery``; ``python -m iouquery`` and ``python -m mmdet_iouquery`` are the same."""

from __future__ import annotations

import os
import signal
import sys


def main(command: str | None = None) -> int:
    """Run the command line and return the exit status; ``command`` is what a script in ``tools/`` stands for."""
    # its arguments are read before anything heavy is imported
    os.environ.setdefault('MMDET_IOUQUERY_REGISTER', 'later')
    try:
        from mmdet_iouquery.main import main as run

        return run(command=command)
    except KeyboardInterrupt:
        print('stopped by SIGINT', file=sys.stderr)
        return 128 + signal.SIGINT


# a process that was spawned from the command, and imports its main module under that name: what it is sent may need
# mmdet, which is to be imported after this package
if sys.modules.get('__mp_main__') not in (None, sys.modules['__main__']):
    import mmdet_iouquery  # noqa: F401

if __name__ == '__main__':
    sys.exit(main())
