"""Eight-bit files: python tools/quantize.py model.onnx --data val.json --images val/ -o model_int8.xml"""

from iouquery import main

if __name__ == '__main__':
    raise SystemExit(main('quantize'))
