"""Look at queries: python tools/analyze_queries.py CONFIG CHECKPOINT [CONFIG CHECKPOINT ...] --out DIR"""

import mmdet_iouquery  # noqa: F401  before mmdet: it may have to stand in for compiled operators
from mmdet_iouquery.apps.analyze import analyze
from mmdet_iouquery.engine.launch import run_tool

if __name__ == '__main__':
    raise SystemExit(run_tool(analyze))
