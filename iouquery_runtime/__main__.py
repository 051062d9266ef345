"""``python -m iouquery_runtime MODEL IMAGE [IMAGE ...] [--out DIR] [--json FILE]``."""

from __future__ import annotations

import io
import sys

from .command import main

if __name__ == '__main__':
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors='replace')  # names of classes may have letters that a terminal lacks
    sys.exit(main())
