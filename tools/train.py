"""Train a detector: python tools/train.py CONFIG [--work-dir DIR] [--resume] [--cfg-options KEY=VALUE ...]"""

from iouquery import main

if __name__ == '__main__':
    raise SystemExit(main('train'))
