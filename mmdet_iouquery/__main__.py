"""``python -m mmdet_iouquery``: the command ``iouquery``."""

from __future__ import annotations

import runpy

if __name__ == '__main__':
    # as the module of its own: processes that are spawned import the main module, but for a file of this name
    runpy.run_module('iouquery', run_name='__main__', alter_sys=True)
