"""Write one ONNX file for other runtimes: python tools/export.py CONFIG CHECKPOINT -o model.onnx"""

from iouquery import main

if __name__ == '__main__':
    raise SystemExit(main('export'))
