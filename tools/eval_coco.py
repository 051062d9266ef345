"""COCO's numbers of detections that were written down: python tools/eval_coco.py OUT|results.json annotations.json"""

import mmdet_iouquery  # noqa: F401  before mmdet: it may have to stand in for compiled operators
from mmdet_iouquery.apps.evaluate.command import evaluate
from mmdet_iouquery.engine.launch import run_tool

if __name__ == '__main__':
    raise SystemExit(run_tool(evaluate))
