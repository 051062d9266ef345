"""``python -m iouquery_runtime MODEL IMAGE [IMAGE ...] [--out DIR] [--json FILE]``."""

from __future__ import annotations

import sys

from .command import main

if __name__ == '__main__':
    sys.exit(main())
