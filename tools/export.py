"""Write one ONNX file for other runtimes: python tools/export.py CONFIG CHECKPOINT -o model.onnx"""

import mmdet_iouquery  # noqa: F401  before mmdet: it may have to stand in for compiled operators
from mmdet_iouquery.apps.export.command import export
from mmdet_iouquery.engine.launch import run_tool

if __name__ == '__main__':
    raise SystemExit(run_tool(export))
