"""A set in any usual form as COCO JSON, checked: python tools/data.py PATH [--out DIR] [--seed N] [--json]"""

import mmdet_iouquery  # noqa: F401  before mmdet: it may have to stand in for compiled operators
from mmdet_iouquery.apps.data.arguments import parser
from mmdet_iouquery.apps.data.command import convert_data
from mmdet_iouquery.engine.launch import run_tool

if __name__ == '__main__':
    args = parser().parse_args()
    raise SystemExit(run_tool(lambda: convert_data(args)))
