"""A page to try a model on images: python tools/demo.py [--checkpoint FILE] [--work-dirs DIR] [--port N]"""

import mmdet_iouquery  # noqa: F401  before mmdet: it may have to stand in for compiled operators
from mmdet_iouquery.apps.demo.command import demo
from mmdet_iouquery.engine.launch import run_tool

if __name__ == '__main__':
    raise SystemExit(run_tool(demo))
