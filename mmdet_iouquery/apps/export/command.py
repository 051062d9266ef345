"""The command line of ``tools/export.py``."""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from ...config_options import KeyValue
from ...deploy.export import EXPORTERS, OPSETS, ExportReport, ExportSettings, check_packages, export_onnx
from ...deploy.graph import ATTENTIONS, INPUTS, PRECISIONS
from ...deploy.metadata import ModelSource, origin
from ...deploy.model_files import check_destination, files_of, is_written
from ...deploy.openvino_file import check_openvino, convert_to_openvino
from ...deploy.source import source_of
from ...deploy.triton import check_target, write_repository
from ...engine.detector import load_detector, read_config
from ...engine.launch import report_preprocessing
from ...engine.work_dir import check_writable
from ...errors import InputError

TARGETS = ('tensorrt',)


def export(arguments: Sequence[str] | None = None) -> ExportReport | None:
    """Write a checkpoint as one ONNX file, check it, and print what it holds; None: that is done already.

    Raises:
        InputError: something named is missing or does not fit, or the config pads.
        ParityError: the file computes something else than the model.
    """
    args = _parser().parse_args(arguments)
    cfg = read_config(args.config, args.cfg_options)
    source = dataclasses.replace(source_of(cfg, args.checkpoint), config_options=args.cfg_options or {})
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
    report_preprocessing(cfg, args.checkpoint)
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description='Write a detector as one ONNX file: pixels in, boxes of the original image out.'
    )
    parser.add_argument('config', help="config file, or the name of one that came with the package: 'rtdetr/...py'")
    parser.add_argument('checkpoint')
    parser.add_argument(
        '-o', '--out', required=True, metavar='FILE', help='the .onnx file to write; or .xml, for OpenVINO'
    )
    parser.add_argument('--force', action='store_true', help='replace FILE if it exists')
    parser.add_argument(
        '--target',
        choices=TARGETS,
        help='--attention gather, opset 17, and the lines that build and compare an engine',
    )
    parser.add_argument(
        '--size',
        nargs=2,
        type=int,
        metavar=('HEIGHT', 'WIDTH'),
        help="of the input, multiples of 32 (default: that of the config's test pipeline)",
    )
    parser.add_argument('--dynamic-size', action='store_true', help='take images of any size, multiples of 32')
    parser.add_argument('--batch', type=int, metavar='N', help='images at once (default: any number)')
    parser.add_argument(
        '--input',
        choices=INPUTS,
        default=INPUTS[0],
        help='uint8-nhwc: bytes as decoders give them (default: %(default)s)',
    )
    parser.add_argument(
        '--raw', action='store_true', help='logits and normalised boxes of all queries, without post-processing'
    )
    parser.add_argument(
        '--attention',
        choices=ATTENTIONS,
        help='how deformable attention reads (default: grid_sample; tensorrt: gather)',
    )
    parser.add_argument(
        '--precision',
        choices=PRECISIONS,
        default=PRECISIONS[0],
        help='float16: weights and most of the work in it, what needs more in float32 (default: %(default)s)',
    )
    parser.add_argument(
        '--opset',
        type=int,
        metavar='N',
        help=f'from {OPSETS[0]} to {OPSETS[-1]}, of dynamo from 18 (default: the least)',
    )
    parser.add_argument('--exporter', choices=EXPORTERS, default=EXPORTERS[0], help="torch's (default: %(default)s)")
    parser.add_argument('--triton', metavar='DIR', help='also put the file into a model repository for Triton there')
    parser.add_argument('--no-verify', action='store_true', help='do not compare the file with the model')
    parser.add_argument(
        '--cfg-options', nargs='+', action=KeyValue, metavar='KEY=VALUE', help='overrides of the config'
    )
    return parser


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
