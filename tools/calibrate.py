"""Fit score thresholds and a calibration: python tools/calibrate.py CONFIG CHECKPOINT [--out PREFIX] [--iou 0.5]"""

import mmdet_iouquery  # noqa: F401  before mmdet: it may have to stand in for compiled operators
from mmdet_iouquery.apps.calibrate.command import calibrate
from mmdet_iouquery.engine.launch import run_tool

if __name__ == '__main__':
    raise SystemExit(run_tool(calibrate))
