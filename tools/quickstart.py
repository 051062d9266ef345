"""Train, evaluate and draw RT-DETR on a small set: python tools/quickstart.py [--data PATH] [--work-dir DIR]"""

from pathlib import Path

import mmdet_iouquery  # noqa: F401  before mmdet: it may have to stand in for compiled operators
from mmdet_iouquery.apps.quickstart.command import quickstart
from mmdet_iouquery.engine.launch import run_tool

if __name__ == '__main__':
    raise SystemExit(run_tool(lambda: quickstart(Path(__file__).resolve().parent)))
