"""A page to try a model on images: python tools/demo.py [--checkpoint FILE] [--work-dirs DIR] [--port N]"""

from iouquery import main

if __name__ == '__main__':
    raise SystemExit(main('demo'))
