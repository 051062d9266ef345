"""The command lines of ``iouquery export`` and ``iouquery quantize``."""

from __future__ import annotations

import argparse

from ...choices import ATTENTIONS, EXPORTERS, INPUTS, OPSETS, PRECISIONS
from ...command_line import ModelParser, add_checkpoint, add_config, add_options

TARGETS = ('tensorrt',)


def parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The arguments of the export."""
    parser = ModelParser(
        prog=prog, description='Write a detector as one ONNX file: pixels in, boxes of the original image out.'
    )
    add_config(parser)
    add_checkpoint(parser)
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
    add_options(parser, 'overrides of the config')
    return parser


def quantize_parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The arguments of the quantisation."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description='Write an exported ONNX file with backbone and neck in eight bits; measure its AP before and '
        'after.',
    )
    parser.add_argument('model', help='the .onnx file that `iouquery export` wrote')
    parser.add_argument('--data', required=True, metavar='FILE.json', help='COCO annotations that AP is measured on')
    parser.add_argument('--images', required=True, metavar='DIR', help="the folder that their file_name's begin in")
    parser.add_argument(
        '-o', '--out', required=True, metavar='FILE', help='.xml for OpenVINO (with a .bin beside it), or .onnx'
    )
    parser.add_argument(
        '--sample-images',
        metavar='DIR',
        help='images that ranges of activations are measured on, best those of the training (default: --images)',
    )
    parser.add_argument('--samples', type=int, default=300, metavar='N', help='how many (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='of their draw (default: %(default)s)')
    parser.add_argument(
        '--max-drop',
        type=float,
        default=0.01,
        metavar='X',
        help='of AP, from 0 to 1: where more is lost no file is left and the exit status is 1 (default: %(default)s)',
    )
    parser.add_argument('--threads', type=int, metavar='N', help='threads to use (default, and most: one a core)')
    parser.add_argument('--force', action='store_true', help='replace FILE if it exists')
    return parser
