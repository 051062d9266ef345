"""Eight-bit files: backbone and neck in whole numbers, what chooses and refines queries in floating point."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import os
import random
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from iouquery_runtime import Detector
from iouquery_runtime.backends import openvino_core
from iouquery_runtime.command import SUFFIXES as IMAGE_SUFFIXES
from iouquery_runtime.files import sha256
from iouquery_runtime.preprocess import network_inputs, read_image, resized

from ..argument_checks import check_counts, check_numbers
from ..errors import InputError, RunError
from .accuracy import LabelledImages, average_precision, progress
from .model_files import check_destination, files_of, is_written
from .openvino_file import write_openvino

FLOAT_PARTS = ('/detector/bbox_head/query_selector', '/detector/bbox_head/decoder', '/postprocess')
"""Prefixes of the nodes that stay in floating point: a query's rank and a box's edge are finer than eight bits."""
FLOAT_IN_BACKBONES = r'(/detector/backbone/(?:.*/)?(?:norm_?\d*|dot_product))/.*'
"""Of nodes in a ViT that do too, behind their layer: norms, and attention from the product of queries and keys on,
softmax and all."""


class AccuracyLostError(RunError):
    """The eight-bit file finds less than was allowed for."""

    status = 1


@dataclass(frozen=True)
class QuantizationReport:
    """What was written, and what it costs."""

    path: Path
    samples: int
    """Images that ranges were measured on."""
    before: Mapping[str, float]
    """AP and its kin of the file that was quantised."""
    after: Mapping[str, float]
    bytes_before: int
    bytes_after: int

    @property
    def drop(self) -> float:
        """What of AP is lost."""
        return self.before['AP'] - self.after['AP']

    def __str__(self) -> str:
        size, size_before = self.bytes_after / 1e6, self.bytes_before / 1e6
        change = 0.0 - round(self.drop, 4)  # never -0.0
        lines = [
            f'{self.path}: AP {self.after["AP"]:.4f}, {self.before["AP"]:.4f} before ({change:+.4f}); '
            f'{size:.1f} MB, {size_before:.1f} before; ranges of {self.samples} images'
        ]
        if not self.before['AP'] > 0:
            lines.append('note: a model that finds nothing has no AP to lose, so what eight bits cost is not known')
        return '\n'.join(lines)


def quantize(
    model: str | Path,
    path: str | Path,
    labelled: LabelledImages,
    *,
    samples: Sequence[Path] | None = None,
    num_samples: int = 300,
    seed: int = 0,
    max_drop: float = 0.01,
    threads: int | None = None,
    force: bool = False,
) -> QuantizationReport | None:
    """Write an exported ONNX file with eight-bit backbone, neck and projections, by NNCF; None: that is done already.

    The file is written under a temporary name and gets its own when its AP has been measured.

    Args:
        model: an ONNX file that :func:`.export_onnx` wrote.
        path: ends in ``.xml`` (OpenVINO) or ``.onnx`` (QuantizeLinear and DequantizeLinear, for onnxruntime).
        labelled: images with boxes that AP is measured on, before and after.
        samples: images that ranges of activations are measured on; None: those of ``labelled``.
        num_samples: how many of them, drawn by ``seed``.
        max_drop: what of AP may be lost, in [0, 1].
        threads: of the runtime.
        force: replace a file that is there.

    Raises:
        InputError: a file is missing, unfit or in the way, a package is missing, an image cannot be read.
        AccuracyLostError: more than ``max_drop`` of AP is lost; no file is left.
    """
    path = Path(path)
    check_counts(num_samples=num_samples)
    check_numbers(most=1.0, max_drop=max_drop)
    check_destination(path)
    _check_packages(path)
    if path.exists() and path.resolve() == Path(model).resolve():
        raise InputError(f'{path} would be written over itself; name another file with -o')
    detector = Detector(model, threads=threads)
    if detector.path.suffix.lower() != '.onnx':
        raise InputError(f'{model} is not an ONNX file; quantise the .onnx that `iouquery export` wrote')
    if detector.metadata.values.get('precision') != 'float32':
        raise InputError(f'{model} is in {detector.metadata.values.get("precision")}; quantise the float32 file')
    labelled.category_ids(detector.names)
    drawn = _drawn(labelled.paths() if samples is None else samples, num_samples, seed)
    origin = {
        'quantised_from': sha256(detector.path),
        'quantised_with': json.dumps({'samples': num_samples, 'seed': seed}),
        'quantised_on': hashlib.sha256('\n'.join(str(image.resolve()) for image in drawn).encode()).hexdigest(),
    }
    if is_written(path, origin, force):
        return None
    before = average_precision(detector, labelled, 'AP before')
    metadata = {
        **detector.metadata.values,
        **origin,
        'precision': 'int8',
    }
    temporary = path.with_name(f'.{path.stem}.quantised{path.suffix}')
    try:
        write_quantized(detector.path, temporary, drawn, metadata, partial(_inputs, detector))
        after = average_precision(Detector(temporary, threads=threads), labelled, 'AP after')
        sizes = [sum(file.stat().st_size for file in files_of(name)) for name in (detector.path, temporary)]
        report = QuantizationReport(path, len(drawn), before, after, *sizes)
        if report.drop > max_drop:
            raise AccuracyLostError(
                f'AP fell from {before["AP"]:.4f} to {after["AP"]:.4f}, by more than {max_drop:g}: no file is left; '
                'measure ranges on more images, or on images more like these (--samples, --sample-images), or allow '
                'more (--max-drop)'
            )
        for file in reversed(files_of(temporary)):  # the .xml last: with it the file is there
            os.replace(file, path.with_suffix(file.suffix))
    except OSError as error:
        raise InputError(f'cannot write {path}: {error.strerror or error}; name another file, or make room') from error
    finally:
        for file in files_of(temporary):
            file.unlink(missing_ok=True)
    return report


def image_files(folder: str | Path) -> list[Path]:
    """The images of a folder, by name.

    Raises:
        InputError: there are none.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f'there is no folder {folder}; correct the path')
    files = sorted(file for file in folder.rglob('*') if file.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise InputError(
            f'{folder} has no images ({", ".join(sorted(IMAGE_SUFFIXES))}); name a folder with images of these kinds'
        )
    return files


def _check_packages(path: Path) -> None:
    needed = ['nncf', *(['openvino'] if path.suffix == '.xml' else ['onnx', 'openvino'])]
    missing = [package for package in needed if importlib.util.find_spec(package) is None]
    if missing:
        raise InputError(
            f'quantisation needs {" and ".join(missing)}: python -m pip install {" ".join(missing)}, or install this '
            'package as mmdet-iouquery[quantize]'
        )


def _drawn(paths: Sequence[Path], number: int, seed: int) -> list[Path]:
    """So many of the paths, in an order that depends on the seed alone."""
    return random.Random(seed).sample([*paths], min(number, len(paths)))


class _Samples(list[Any]):
    """What NNCF goes through, more than once; it draws bars of its own, but in a log says nothing until the end."""

    def __iter__(self) -> Iterator[Any]:
        return super().__iter__() if sys.stderr.isatty() else progress(self[:], 'ranges')


def write_quantized(
    source: Path,
    path: Path,
    samples: Sequence[Any],
    metadata: Mapping[str, str],
    inputs: Callable[[Any], Mapping[str, NDArray[Any]]] = lambda sample: sample,
) -> None:
    """Have NNCF measure ranges and write a file.

    Args:
        source: an exported ``.onnx`` file.
        path: ends in ``.xml`` or ``.onnx``.
        samples: what ranges are measured on.
        metadata: what the file says of itself, beside the layers that stay in floating point.
        inputs: gives the graph's inputs by name of one sample.
    """
    import nncf

    nncf.set_log_level(logging.ERROR)
    model: Any
    if path.suffix == '.xml':
        model = openvino_core().read_model(str(source))
        # what makes an output is called as the output there, not by its part
        last = [output.get_node().input_value(0).get_node().get_friendly_name() for output in model.outputs]
        names = [node.get_friendly_name() for node in model.get_ops()]
    else:
        import onnx

        model, last = onnx.load(str(source)), []
        names = [node.name for node in model.graph.node]
    in_backbones = {match[1] for match in map(re.compile(FLOAT_IN_BACKBONES).fullmatch, names) if match}
    metadata = {**metadata, 'float32_layers': json.dumps([*FLOAT_PARTS, *sorted(in_backbones)])}
    quantised: Any = nncf.quantize(
        model,
        calibration_dataset=nncf.Dataset(_Samples(samples), inputs),
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(samples),
        ignored_scope=nncf.IgnoredScope(
            names=last, patterns=[*(f'{prefix}.*' for prefix in FLOAT_PARTS), FLOAT_IN_BACKBONES], validate=False
        ),
    )
    if path.suffix == '.xml':
        write_openvino(quantised, path, metadata)
        return
    del quantised.metadata_props[:]
    onnx.helper.set_model_props(quantised, metadata)
    path.write_bytes(quantised.SerializeToString())


def _inputs(detector: Detector, image: Path) -> dict[str, NDArray[Any]]:
    """Of an image, as often as the graph takes it at once."""
    pixels = read_image(image, str(image))
    small = resized(pixels, *detector.image_size, detector.metadata.resize)
    batch = detector.batch_size or 1
    return network_inputs([small] * batch, [(pixels.shape[1], pixels.shape[0])] * batch, detector.metadata)
