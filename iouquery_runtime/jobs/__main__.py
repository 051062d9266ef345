"""``python -m iouquery_runtime.jobs MODEL --images ... -o OUT``."""

from __future__ import annotations

import sys

from .command import main

if __name__ == '__main__':
    sys.exit(main())
