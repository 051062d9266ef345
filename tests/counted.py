"""An exported file as the detector of a job, which notes what it is called with, is slow where it should be, and dies.

It is imported by workers, so it imports nothing of torch.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from PIL import Image

from iouquery_runtime.jobs.worker import ExportedOpener, Prepared

DEADLY, FAILING = 'deadly', 'failing'
"""In the name of an image: the worker is killed by it; the detector raises."""


class CountedOpener(ExportedOpener):
    """Of a file.

    Args:
        model: the file.
        calls: a file that gets a line for each image read: process, name, and which of torch and mmdet are loaded.
        seconds: that each image takes longer.
    """

    def __init__(self, model: Path, calls: Path, seconds: float = 0.0) -> None:
        super().__init__(str(model))
        self.calls, self.seconds = calls, seconds

    def prepare(self, data: bytes, name: str) -> Prepared:
        time.sleep(self.seconds)
        heavy = [module for module in ('torch', 'mmdet', 'mmengine', 'mmdet_iouquery') if module in sys.modules]
        with open(self.calls, 'a', encoding='utf-8') as file:  # appended to as a whole, whoever else writes
            file.write(f'{os.getpid()} {Path(name).name} {",".join(heavy) or "light"}\n')
        if DEADLY in name:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().prepare(data, name)._replace(about=name)

    def open(self) -> Any:
        detect = super().open()

        def detect_or_fail(images: Any) -> Any:
            if any(FAILING in (image.about or '') for image in images):
                raise RuntimeError('CUDA error: an illegal memory access\nwas encountered!')
            return detect(images)

        return detect_or_fail


class Calls:
    """What :class:`CountedOpener` has noted."""

    def __init__(self, path: Path) -> None:
        lines = path.read_text(encoding='utf-8').splitlines() if path.exists() else []
        self.lines = [line.split() for line in lines if len(line.split()) == 3]

    @property
    def by_image(self) -> Counter[str]:
        return Counter(name for _, name, _ in self.lines)

    @property
    def workers(self) -> set[int]:
        return {int(pid) for pid, _, _ in self.lines}

    @property
    def loaded(self) -> set[str]:
        return {modules for _, _, modules in self.lines}


def make_images(folder: Path, count: int, *more: str) -> list[Path]:
    """Small images, no two alike; ``more`` are names of further ones."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name for name in (*(f'{i:05d}.png' for i in range(count)), *more)]
    for i, path in enumerate(paths):
        colour = i * 37 % 256, i * 101 % 256, i // 7 * 53 % 256
        image = Image.new('RGB', (40 + i % 9, 30 + i % 5), colour)
        image.paste((255 - colour[0], colour[2], 99), (5, 5, 20 + i % 11, 20))
        image.save(path)
    return paths


def terminate(runtime_env: Any) -> Any:
    """SIGTERM to this process; as ``RAY_RUNTIME_ENV_HOOK`` it is called in the middle of ``ray.init``."""
    os.kill(os.getpid(), signal.SIGTERM)
    return runtime_env


def main() -> None:
    """``python counted.py MODEL IMAGES OUT CALLS SECONDS [ADDRESS]``: a driver that can be killed."""
    from iouquery_runtime.jobs import command, predict
    from iouquery_runtime.jobs.engine import Size

    model, images, out, calls, seconds, *address = sys.argv[1:]
    size = Size(workers=2, batch_size=4)
    known: dict[str, Any] = dict(address=next(iter(address), None), resume=True, part_seconds=0.3)
    request = predict.Request(images, Path(out), size=size, **known)
    sys.exit(command.ended(lambda: predict.predict(request, CountedOpener(Path(model), Path(calls), float(seconds)))))


if __name__ == '__main__':
    main()
