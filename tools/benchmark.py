"""Time inference, training, criterion, attention, data or evaluation: python tools/benchmark.py SUBJECT [--out FILE]"""

from iouquery import main

if __name__ == '__main__':
    raise SystemExit(main('benchmark'))
