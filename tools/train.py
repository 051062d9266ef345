"""Train a detector: python tools/train.py CONFIG [--work-dir DIR] [--resume] [--cfg-options KEY=VALUE ...]"""

import mmdet_iouquery  # noqa: F401  before mmdet: it may have to stand in for compiled operators
from mmdet_iouquery.engine.launch import run_tool, train

if __name__ == '__main__':
    raise SystemExit(run_tool(train))
