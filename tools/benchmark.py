"""Time inference, training, criterion, attention, data or evaluation: python tools/benchmark.py SUBJECT [--out FILE]"""

import mmdet_iouquery  # noqa: F401  before mmdet: it may have to stand in for compiled operators
from mmdet_iouquery.apps.benchmark.command import benchmark
from mmdet_iouquery.engine.launch import run_tool

if __name__ == '__main__':
    raise SystemExit(run_tool(benchmark))
