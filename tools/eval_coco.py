"""COCO's numbers of detections that were written down: python tools/eval_coco.py OUT|results.json annotations.json"""

from iouquery import main

if __name__ == '__main__':
    raise SystemExit(main('evaluate'))
