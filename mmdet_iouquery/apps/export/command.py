"""What ``iouquery export`` runs."""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from ...command_line import named_files
from ...config_options import read_options
from ...deploy.export import ExportReport, ExportSettings, check_packages, export_onnx
from ...deploy.metadata import ModelSource, origin
from ...deploy.model_files import check_destination, files_of, is_written
from ...deploy.model_source import source_of
from ...deploy.openvino_file import check_openvino, convert_to_openvino
from ...deploy.triton import check_target, write_repository
from ...engine.detector import load_detector, read_config
from ...engine.launch import report_differences
from ...engine.trained_files import model_files
from ...engine.work_dir import check_writable
from ...errors import InputError
from .arguments import parser


def export(arguments: Sequence[str] | None = None) -> ExportReport | None:
    """What :func:`execute` does, with the arguments of a command line."""
    return execute(parser().parse_args(arguments))


def execute(args: argparse.Namespace) -> ExportReport | None:
    """Write a checkpoint as one ONNX file, check it, and print what it holds; None: that is done already.

    Raises:
        InputError: something named is missing or does not fit, or the config pads.
        ParityError: the file computes something else than the model.
    """
    args.config, args.checkpoint = model_files(named_files(args))
    options = read_options(args.cfg_options)
    cfg = read_config(args.config, options)
    source = dataclasses.replace(source_of(cfg, args.checkpoint), config_options=options or {})
    settings = _settings(args, source.default_size)
    check_packages(settings)
    out = Path(args.out)
    check_destination(out)
    if args.target == 'tensorrt' and out.suffix != '.onnx':
        raise InputError(f'TensorRT reads ONNX files, which {out} is not: name one with -o')
    if args.triton:
        _check_triton(args.triton, out)
    if out.suffix == '.xml':
        check_openvino()
    if is_written(out, origin(source, settings), args.force):
        print(f'{out} is written already, from this checkpoint and with these settings; --force writes it anew')
        _print_next(args, out, settings)
        return None
    check_writable(out.parent, option='--out')
    detector = load_detector(cfg, args.checkpoint)
    report_differences(cfg, args.checkpoint)
    report = _written(detector, out, settings, source, args.force)
    print(_summary(report))
    _print_next(args, out, settings)
    return report


def _check_triton(folder: str, out: Path) -> None:
    """Raise :class:`InputError` where the model could not be put into a model repository at the end."""
    if out.suffix != '.onnx':
        raise InputError(f'--triton is for ONNX files, which {out} is not: name one with -o')
    check_target(Path(folder), out.stem)
    check_writable(folder, option='--triton')


def _print_next(args: argparse.Namespace, out: Path, settings: ExportSettings) -> None:
    """What can be done with the file."""
    if args.target == 'tensorrt':
        print(tensorrt_lines(out, settings))
    if args.triton:
        print(f'for Triton: {write_repository(out, args.triton)}')


def _written(
    detector: nn.Module, out: Path, settings: ExportSettings, source: ModelSource, force: bool
) -> ExportReport:
    """The ONNX file, or what OpenVINO makes of it."""
    if out.suffix != '.xml':
        return export_onnx(detector, out, settings, source, force=force)
    with tempfile.TemporaryDirectory() as folder:
        report = export_onnx(detector, Path(folder) / 'model.onnx', settings, source)
        convert_to_openvino(report.path, out, report.metadata)
    size = sum(file.stat().st_size for file in files_of(out))
    return dataclasses.replace(report, path=out, num_bytes=size)


def _settings(args: argparse.Namespace, default_size: tuple[int, int] | None) -> ExportSettings:
    tensorrt = args.target == 'tensorrt'
    if tensorrt and (args.dynamic_size or args.attention == 'grid_sample' or args.opset not in (None, 17)):
        raise InputError(
            '--target tensorrt is for a fixed size, --attention gather and opset 17, as TensorRT computes GridSample '
            'wrongly in this family of models (NVIDIA/TensorRT issues 4646 and 4813); leave these options out'
        )
    if args.opset == 20:
        print('note: of opset 20, TensorRT 10.13 computes GridSample wrongly (NVIDIA/TensorRT issue 4646)')
    return ExportSettings(
        size=tuple(args.size) if args.size else default_size or (640, 640),
        dynamic_size=args.dynamic_size,
        batch=args.batch,
        input=args.input,
        raw=args.raw,
        attention=args.attention or ('gather' if tensorrt else 'grid_sample'),
        precision=args.precision,
        opset=args.opset,
        exporter=args.exporter,
        verify=not args.no_verify,
    )


def _summary(report: ExportReport) -> str:
    size, opset = report.num_bytes / 1e6, report.settings.written_opset
    lines = [
        f'{report.path}: {size:.1f} MB, {report.num_nodes} nodes, opset {opset}',
        *(f'as the model, {parity}' for parity in report.parity),
    ]
    return '\n'.join(lines if report.parity else [*lines, 'not compared with the model'])


def tensorrt_lines(path: Path, settings: ExportSettings) -> str:
    """What a user of TensorRT types next."""
    sides = 'x'.join(map(str, settings.size))
    images = f'{sides}x3' if settings.input == 'uint8-nhwc' else f'3x{sides}'

    def shapes(batch: int) -> str:
        inputs = {'images': images} if settings.raw else {'images': images, 'sizes': '2'}
        return ','.join(f'{name}:{batch}x{shape}' for name, shape in inputs.items())

    ranges = ''
    if settings.batch is None:
        ranges = f' --minShapes={shapes(1)} --optShapes={shapes(1)} --maxShapes={shapes(8)}'
    return (
        'for TensorRT (these lines were not run here):\n'
        f'  trtexec --onnx={path} --saveEngine={path.with_suffix(".engine")} --stronglyTyped{ranges}\n'
        f'  polygraphy run {path} --trt --strongly-typed --onnxrt --atol 1e-3 --rtol 1e-3'
    )
