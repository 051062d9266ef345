"""Fit score thresholds and a calibration: python tools/calibrate.py CONFIG CHECKPOINT [--out PREFIX] [--iou 0.5]"""

from iouquery import main

if __name__ == '__main__':
    raise SystemExit(main('calibrate'))
