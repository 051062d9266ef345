"""Write a detector as a folder to share, and send that to the Hugging Face Hub."""

from __future__ import annotations

import argparse
import sys

from mmdet_iouquery.checkpoints.hub import push_to_hub, save_pretrained
from mmdet_iouquery.checkpoints.model_card import read_metrics
from mmdet_iouquery.engine.detector import read_config
from mmdet_iouquery.engine.launch import run_tool


def parse_args(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest='command_name', required=True)
    save = commands.add_parser('save', help='write a folder: config.py, model.safetensors, README.md')
    save.add_argument('config', help="config file, or the name of one that came with the package: 'rtdetr/...py'")
    save.add_argument('checkpoint')
    save.add_argument('folder')
    save.add_argument(
        '--license',
        required=True,
        help='of the weights, an identifier of the Hub: apache-2.0, mit, cc-by-4.0, agpl-3.0, other, ...',
    )
    save.add_argument('--metrics', metavar='FILE', help='PREFIX.metrics.json of tools/test.py --out PREFIX')
    save.add_argument('--command', help='what the metrics were measured by, as it was typed')
    save.add_argument(
        '--onnx', metavar='FILE', help='the model that tools/export.py wrote of CHECKPOINT, to lie beside'
    )
    save.add_argument('--force', action='store_true', help='replace files of another model')
    push = commands.add_parser('push', help='send such a folder; log in before, by `hf auth login` or HF_TOKEN')
    push.add_argument('folder')
    push.add_argument('repo', help='USER/NAME; made where it is missing')
    push.add_argument('--private', action='store_true', default=None, help='of a new repository')
    push.add_argument('--force', action='store_true', help='go on where the repository holds other weights')
    return parser.parse_args(arguments)


def save(args: argparse.Namespace) -> None:
    """Write the folder, and say so."""
    written = save_pretrained(
        args.checkpoint,
        args.folder,
        license=args.license,
        config=read_config(args.config),
        metrics=None if args.metrics is None else read_metrics(args.metrics),
        command=args.command,
        onnx=args.onnx,
        force=args.force,
    )
    if written:
        print(f'{args.folder}: written; mmdet_iouquery.from_pretrained({args.folder!r}) opens it')
    else:
        print(f'{args.folder} holds this detector already; nothing to do')


def push(args: argparse.Namespace) -> None:
    """Send the folder, and say so."""
    sent = push_to_hub(args.folder, args.repo, private=args.private, force=args.force)
    print(f'{args.repo}: sent' if sent else f'{args.repo} holds this detector already; nothing to do')


def main(arguments: list[str] | None = None) -> int:
    """Run; returns the exit status, 2 for input that a person can mend."""
    args = parse_args(arguments)
    return run_tool(lambda: {'save': save, 'push': push}[args.command_name](args))


if __name__ == '__main__':
    sys.exit(main())
