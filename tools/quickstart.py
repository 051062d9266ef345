"""Train, evaluate and draw RT-DETR on a small set: python tools/quickstart.py [--data PATH] [--work-dir DIR]"""

from iouquery import main

if __name__ == '__main__':
    raise SystemExit(main('quickstart'))
