"""Compare configs on equal data and seeds: python tools/compare.py CONFIG ... --work-dir DIR [--seeds N ...]"""

from pathlib import Path

import mmdet_iouquery  # noqa: F401  before mmdet: it may have to stand in for compiled operators
from mmdet_iouquery.apps.compare import compare
from mmdet_iouquery.engine.launch import run_tool

if __name__ == '__main__':
    raise SystemExit(run_tool(lambda: compare(Path(__file__).resolve().parent)))
