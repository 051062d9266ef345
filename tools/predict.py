"""Detections of any number of images: python tools/predict.py MODEL --images DIR|GLOB|manifest.parquet|s3://... -o OUT

MODEL is an exported .onnx or .xml file, or CONFIG CHECKPOINT.
"""

from iouquery import main

if __name__ == '__main__':
    raise SystemExit(main('predict'))
