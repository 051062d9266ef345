"""Eight-bit files: python tools/quantize.py model.onnx --data val.json --images val/ -o model_int8.xml"""

import mmdet_iouquery  # noqa: F401  before mmdet: it may have to stand in for compiled operators
from mmdet_iouquery.apps.export.quantize_command import quantize_file
from mmdet_iouquery.engine.launch import run_tool

if __name__ == '__main__':
    raise SystemExit(run_tool(quantize_file))
