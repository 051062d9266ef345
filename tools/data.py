"""A set in any usual form as COCO JSON, checked: python tools/data.py PATH [--out DIR] [--seed N] [--json]"""

from iouquery import main

if __name__ == '__main__':
    raise SystemExit(main('data'))
