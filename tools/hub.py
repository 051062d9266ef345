"""Write a detector as a folder to share, and send that to the Hugging Face Hub."""

from iouquery import main

if __name__ == '__main__':
    raise SystemExit(main('hub'))
