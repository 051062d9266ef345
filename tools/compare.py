"""Compare configs on equal data and seeds: python tools/compare.py CONFIG ... --work-dir DIR [--seeds N ...]"""

from iouquery import main

if __name__ == '__main__':
    raise SystemExit(main('compare'))
