"""Look at queries: python tools/analyze_queries.py CONFIG CHECKPOINT [CONFIG CHECKPOINT ...] --out DIR"""

from iouquery import main

if __name__ == '__main__':
    raise SystemExit(main('analyze'))
