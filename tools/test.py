"""Evaluate a checkpoint: python tools/test.py CONFIG CHECKPOINT [--out PREFIX] [--cfg-options KEY=VALUE ...]"""

from iouquery import main

if __name__ == '__main__':
    raise SystemExit(main('test'))
