"""Make the small handwriting detection set: ``python tools/make_digits.py data/digits``."""

from iouquery import main

if __name__ == '__main__':
    raise SystemExit(main('digits'))
