"""From pictures to a trained, evaluated and drawn detector in one call: what ``make quickstart`` runs."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

from ..analysis import contact_sheet, draw_run
from ..config_files import config_path
from ..datasets import CocoSet, build_digits, find_coco_set
from ..errors import InputError
from .child import run_child

BASE = 'quickstart/rtdetr_r18vd_160_digits.py'
NUM_PICTURES, SCORE_THR, NUM_LOOKED_AT = 8, 0.5, 50


def quickstart(tools: Path, arguments: Sequence[str] | None = None) -> None:
    """Run the whole way.

    Args:
        tools: folder of ``train.py`` and ``test.py``.
        arguments: of the command line.
    """
    args = _parser().parse_args(arguments)
    started = time.monotonic()
    work_dir = Path(args.work_dir or _default_work_dir(args.data)).resolve()
    work_dir.mkdir(parents=True, exist_ok=True)
    coco = _data(args.data, work_dir)
    config = _write_config(work_dir, coco, args)

    _say(f'training on {coco.train_images}: {args.iters} steps, classes {", ".join(coco.classes)}')
    # a run that was cut off goes on where it was
    _run(tools / 'train.py', config, '--work-dir', work_dir, '--resume')
    trained = time.monotonic()
    checkpoint, results = work_dir / f'iter_{args.iters}.pth', work_dir / 'detections'
    _say(f'evaluating {checkpoint.name} on {coco.val_images}')
    _run(tools / 'test.py', config, checkpoint, '--work-dir', work_dir / 'test', '--out', results)
    metrics = json.loads(Path(f'{results}.metrics.json').read_text())
    pictures = draw_run(
        coco.val_ann,
        coco.val_images,
        f'{results}.bbox.json',
        work_dir / 'pictures',
        num_images=NUM_PICTURES,
        score_thr=SCORE_THR,
    )
    contact_sheet(pictures, 2, work_dir / 'pictures.png')
    _say('looking at what the queries select, and where they go')
    looked_at = ['--names', work_dir.name, '--images', NUM_LOOKED_AT, '--pictures', 1]
    _run(tools / 'analyze_queries.py', config, checkpoint, '--out', work_dir / 'queries', *looked_at)
    _summary(work_dir, config, checkpoint, metrics, trained - started, time.monotonic() - started)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description='Train RT-DETR-R18 from scratch on a small set, evaluate it, draw it.')
    parser.add_argument(
        '--data', help='folder or JSON file of your own COCO-style set (default: handwritten digits, made here)'
    )
    parser.add_argument('--work-dir', help='folder for everything that comes out (default: work_dirs/quickstart...)')
    parser.add_argument('--iters', type=_at_least_two, default=600, help='training steps of 4 pictures (default: 600)')
    parser.add_argument(
        '--image-size',
        type=_at_least_two,
        default=160,
        help='pictures are resized to this side in pixels (default: 160)',
    )
    return parser


def _at_least_two(text: str) -> int:
    value = int(text)
    if value < 2:
        raise argparse.ArgumentTypeError(f'{text} is less than 2')
    return value


def _default_work_dir(data: str | None) -> Path:
    return Path('work_dirs') / ('quickstart' if data is None else f'quickstart_{Path(data).resolve().stem}')


def _data(data: str | None, work_dir: Path) -> CocoSet:
    if data is not None:
        return find_coco_set(data, split_to=work_dir / 'annotations')
    return find_coco_set(build_digits(Path('data') / 'digits'))


def _write_config(work_dir: Path, coco: CocoSet, args: argparse.Namespace) -> Path:
    """Write the run's config, a child of the shipped one; refuse a folder that holds another run."""
    path, text = work_dir / 'config.py', config_text(coco, iters=args.iters, image_size=args.image_size)
    if path.is_file() and path.read_text() != text:
        raise InputError(
            f'{work_dir} holds a run with other settings ({path.name} differs); choose another --work-dir (make: '
            f'WORK_DIR=...) or remove that folder'
        )
    path.write_text(text)
    return path


def config_text(coco: CocoSet, *, iters: int, image_size: int) -> str:
    """A config that trains the quickstart's model on ``coco``, for people to read and go on from."""
    return f'''"""RT-DETR-R18 on {coco.train_images.name}, written by tools/quickstart.py. Yours to change."""
_base_ = [{config_path(BASE)!r}]

classes = {tuple(coco.classes)!r}
image_scale = ({image_size}, {image_size})
max_iters = {iters}
warmup_iters = {min(50, iters // 2)}

model = dict(
    bbox_head=dict(num_classes=len(classes)),
    test_cfg=dict(keep_selected=True),  # for QuerySelectionMetric
)

resize = dict(type='Resize', scale=image_scale, keep_ratio=False, interpolation='bilinear', backend='pillow')
annotations = dict(type='LoadAnnotations', with_bbox=True)
at_least_1_px = dict(type='FilterAnnotations', min_gt_bbox_wh=(1, 1), keep_empty=False)
meta_keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')
train_dataloader = dict(
    dataset=dict(
        data_root='',
        metainfo=dict(classes=classes),
        ann_file={str(coco.train_ann)!r},
        data_prefix=dict(img={str(coco.train_images)!r}),
        pipeline=[
            dict(type='LoadCheckedImage', on_error='skip'),
            annotations,
            resize,
            at_least_1_px,
            dict(type='PackDetInputs'),
        ],
    )
)
val_dataloader = dict(
    dataset=dict(
        data_root='',
        metainfo=dict(classes=classes),
        ann_file={str(coco.val_ann)!r},
        data_prefix=dict(img={str(coco.val_images)!r}),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='CheckImage'),
            resize,
            annotations,
            dict(type='PackDetInputs', meta_keys=meta_keys),
        ],
    )
)
test_dataloader = val_dataloader
val_evaluator = [
    dict(type='CocoMetric', ann_file={str(coco.val_ann)!r}, metric='bbox'),
    dict(type='QuerySelectionMetric'),
]
test_evaluator = val_evaluator

train_cfg = dict(max_iters=max_iters, val_interval=max(1, max_iters // 2))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=warmup_iters),
    dict(type='LinearLR', start_factor=1.0, end_factor=0.02, by_epoch=False, begin=warmup_iters, end=max_iters),
]
default_hooks = dict(checkpoint=dict(interval=max(1, max_iters // 4)))
'''


def _run(program: Path, *arguments: object) -> None:
    """Run a tool with this interpreter; its own message has said why when it fails."""
    status = run_child(program, *arguments)
    if status:
        raise InputError(f'{program.name} left with status {status}; what it said stands above')


def _say(text: str) -> None:
    print(f'\n== {text}', flush=True)


def _summary(
    work_dir: Path, config: Path, checkpoint: Path, metrics: dict[str, float], training: float, total: float
) -> None:
    ap = {name: next((v for k, v in metrics.items() if k.endswith(f'bbox_{name}')), -1.0) for name in ('mAP', 'mAP_50')}
    logs = sorted(work_dir.glob('*/*.log'))
    _say(f'done in {total / 60:.1f} minutes, {training / 60:.1f} of them data and training')
    rows = [
        ('COCO AP', f'{ap["mAP"]:.3f}   (IoU 0.50:0.95; at 0.50: {ap["mAP_50"]:.3f})'),
        ('pictures', f'{work_dir / "pictures.png"}   (each alone in {work_dir / "pictures"})'),
        ('queries', f'{work_dir / "queries" / "index.html"}   (a page to open in a browser)'),
        ('checkpoint', checkpoint),
        ('config', config),
        ('detections', work_dir / 'detections.bbox.json'),
        ('training log', logs[-1] if logs else work_dir),
    ]
    for name, value in rows:
        print(f'{name:>13}  {value}')
