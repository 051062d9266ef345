"""Detections of any number of images: python tools/predict.py MODEL --images DIR|GLOB|manifest.parquet|s3://... -o OUT

MODEL is an exported .onnx or .xml file, or CONFIG CHECKPOINT.
"""

import mmdet_iouquery  # noqa: F401  before mmdet: it may have to stand in for compiled operators
from mmdet_iouquery.apps.predict.command import predict
from mmdet_iouquery.engine.launch import run_tool

if __name__ == '__main__':
    raise SystemExit(run_tool(predict))
