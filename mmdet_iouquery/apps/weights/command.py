"""What ``iouquery convert`` and ``iouquery hub`` run."""

from __future__ import annotations

import argparse

from ...checkpoints.class_names import parse_class_names
from ...checkpoints.convert_file import convert_file
from ...checkpoints.hub import push_to_hub, save_pretrained
from ...checkpoints.model_card import read_metrics
from ...command_line import named_files
from ...engine.detector import read_config
from ...engine.trained_files import model_files


def convert(args: argparse.Namespace) -> None:
    """Convert, and say what was done."""
    summary = convert_file(
        args.src,
        args.dst,
        args.source,
        target=args.to,
        source_classes=parse_class_names(args.source_classes) if args.source_classes is not None else None,
        target_classes=parse_class_names(args.classes) if args.classes is not None else None,
        config=None if args.config is None else read_config(args.config),
        force=args.force,
    )
    print(summary or f'{args.dst} holds this conversion of {args.src} already; nothing to do')


def share(args: argparse.Namespace) -> None:
    """Write the folder, or send it, and say so."""
    if args.action == 'save':
        _save(args)
    else:
        _push(args)


def _save(args: argparse.Namespace) -> None:
    config, checkpoint = model_files(named_files(args))
    written = save_pretrained(
        checkpoint,
        args.folder,
        license=args.license,
        config=read_config(config),
        metrics=None if args.metrics is None else read_metrics(args.metrics),
        command=args.command,
        onnx=args.onnx,
        force=args.force,
    )
    if written:
        print(f'{args.folder}: written; mmdet_iouquery.from_pretrained({args.folder!r}) opens it')
    else:
        print(f'{args.folder} holds this detector already; nothing to do')


def _push(args: argparse.Namespace) -> None:
    sent = push_to_hub(args.folder, args.repo, private=args.private, force=args.force)
    print(f'{args.repo}: sent' if sent else f'{args.repo} holds this detector already; nothing to do')
