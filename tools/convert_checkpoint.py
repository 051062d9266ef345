"""Convert a checkpoint of the authors' or Hugging Face's RT-DETR or D-FINE to this package's names, or back."""

from iouquery import main

if __name__ == '__main__':
    raise SystemExit(main('convert'))
