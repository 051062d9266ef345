"""The command ``python -m mmdet_iouquery.doctor``; what it does is in :mod:`mmdet_iouquery.apps.doctor`."""

from __future__ import annotations

import sys

from .apps.doctor.command import main

if __name__ == '__main__':
    sys.exit(main())
