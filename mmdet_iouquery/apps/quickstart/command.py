"""From images to a trained, evaluated and drawn detector in one call: what ``make quickstart`` runs."""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config

from ...config_files import config_path, tools_root
from ...config_options import differences, flattened
from ...datasets.coco.json_file import read_coco, read_json
from ...engine.preflight.config_mistakes import text_of
from ...engine.run_settings import changed_files
from ...engine.work_dir import check_writable, claimed, set_aside
from ...errors import InputError
from ...file_io import checksum, write_json, write_text
from ..analyze.draw import contact_sheet
from ..analyze.draw_run import draw_run
from ..child_process import run_child
from ..data.coco_set import Check, CocoSet, find_coco_set
from ..data.conversion import read_data
from .arguments import parser
from .digits import build_digits

BASE = 'quickstart/rtdetr_r18vd_digits.py'
NUM_IMAGES_DRAWN, SCORE_THR, NUM_IMAGES_ANALYZED = 8, 0.5, 50
FEWEST_QUERIES, MOST_QUERIES = 50, 300
NOTE_NAME = 'quickstart.json'
_WRITTEN = ('config.py', 'config_resolved.py', NOTE_NAME, 'annotations', 'test', 'pictures', 'pictures.png', 'queries')
_WAYS_OUT = 'choose another --work-dir (make: WORK_DIR=...), or start anew with --restart (make: ARGS=--restart)'
_RESULTS = ('detections.bbox.json', 'detections.metrics.json')


def quickstart(tools: Path, arguments: Sequence[str] | None = None) -> None:
    """What :func:`execute` does, with the arguments of a command line."""
    execute(parser().parse_args(arguments), tools)


def make_digits(args: argparse.Namespace) -> None:
    """Write the set of handwritten digits."""
    recipe = vars(args)
    build_digits(recipe.pop('root'), **recipe)


def execute(args: argparse.Namespace, tools: Path | None = None) -> None:
    """Run the whole way, or what an earlier call has left of it.

    Args:
        args: of the command line.
        tools: folder of ``train.py`` and ``test.py``; None: of those that came with the package.

    Raises:
        InputError: the arguments or the data are unfit, the work folder holds a run of other settings, a stage failed.
    """
    work_dir = Path(args.work_dir or _default_work_dir(args.data)).resolve()
    if args.data is not None and not Path(args.data).expanduser().exists():  # before a folder is made for it
        raise InputError(f'no folder or file {Path(args.data).absolute()}; name a set with --data')
    check_writable(work_dir)
    with claimed(work_dir, '.quickstart.lock'):
        if args.restart:
            _set_aside(work_dir)
        progress = Progress(work_dir)
        progress.require_same('settings', _options(args))
        coco = _data(args.data, work_dir, lambda sums, _: progress.require_unchanged(sums))
        text = config_text(
            coco,
            iters=args.iters,
            image_size=args.image_size,
            seed=args.seed,
            num_queries=enough_queries(coco),
        )
        progress.require_same('config', flattened(Config.fromstring(text, '.py').to_dict()))
        config = progress.write_config(text)
        minutes = progress.run(_stages(tools or tools_root(), work_dir, config, coco, args.iters))
        if minutes:
            parts = ', '.join(f'{name} {value:.1f}' for name, value in minutes.items())
            _say(f'done in {sum(minutes.values()):.1f} minutes: {parts}')
        else:
            _say('finished before, nothing to do; --restart (make: ARGS=--restart) starts anew')
        _summary(work_dir, config, args.iters)


class Stage(NamedTuple):
    """One step of the way: its name, what is said when it begins, the file it leaves, and what makes it."""

    name: str
    title: str
    result: Path
    make: Callable[[], None]


class Progress:
    """What a work folder notes of its run: the settings, and the stages that are done.

    Raises:
        InputError: the folder holds a run, but no such note.
    """

    def __init__(self, work_dir: Path) -> None:
        self.work_dir = work_dir
        note = read_json(work_dir / NOTE_NAME) if (work_dir / NOTE_NAME).is_file() else {}
        if not note and (work_dir / 'config.py').exists():
            raise InputError(f'{work_dir} holds a run whose settings are not known; {_WAYS_OUT}')
        self.settings: dict[str, Any] = note.get('settings', {})
        self.done: list[str] = note.get('done', [])
        self.texts: list[str] = note.get('texts', [])  # of the config, the last one written and the one before
        self.has_trained = any(work_dir.glob('*.pth'))

    def require_same(self, kind: str, asked: Mapping[str, Any]) -> None:
        """Note settings of a kind; raise :class:`InputError` where there is a checkpoint of others."""
        differing = differences(self.settings.get(kind, asked), asked)
        if differing and self.has_trained:
            raise InputError(f'{self.work_dir} holds a run with other {kind} ({differing}); {_WAYS_OUT}')
        self.settings[kind] = dict(asked)

    def require_unchanged(self, asked: Mapping[str, str]) -> None:
        """Likewise of annotation files, by their checksums."""
        changed = changed_files(self.settings.get('annotations', {}), asked)
        if changed and self.has_trained:
            raise InputError(
                f'{self.work_dir} holds a run with other annotations ({", ".join(changed)} changed since); {_WAYS_OUT}'
            )
        self.settings['annotations'] = dict(asked)

    def write_config(self, text: str) -> Path:
        """Write the run's config, a child of the shipped one, and the note; refuse to write over one that was edited.

        Raises:
            InputError: the file holds another text than was written.
        """
        path = self.work_dir / 'config.py'
        present = path.read_text(encoding='utf-8') if path.is_file() else text
        if present not in (text, *self.texts):
            raise InputError(
                f'{path} was edited ({_changed(self.texts[0] if self.texts else text, present)}); train it with '
                f'`iouquery train {path} --work-dir OTHER_FOLDER`, or move it away to have it written again'
            )
        self.texts = [text, *self.texts[:1]]
        self.write()  # first: a stop before the config is there leaves settings that are known
        write_text(path, text)
        return path

    def run(self, stages: Sequence[Stage]) -> dict[str, float]:
        """Make the first stage that is missing and all after it, which build on it; returns minutes by their names."""
        whole = [stage.name in self.done and stage.result.is_file() for stage in stages]
        first = whole.index(False) if False in whole else len(stages)
        minutes = {}
        for number in range(first, len(stages)):
            stage = stages[number]
            self.write(stages[:number])
            _say(stage.title)
            started = time.monotonic()
            stage.make()
            minutes[stage.name] = (time.monotonic() - started) / 60
            self.write(stages[: number + 1])
        return minutes

    def write(self, done: Sequence[Stage] | None = None) -> None:
        """Write the note; ``done`` are the stages that are whole from now on, None: as before."""
        if done is not None:
            self.done = [stage.name for stage in done]
        note = {'settings': self.settings, 'done': self.done, 'texts': self.texts}
        write_json(self.work_dir / NOTE_NAME, note)


def _changed(written: str, present: str) -> str:
    """The settings in which an edited config differs from what was written, or why it cannot be told."""
    try:
        before, now = (flattened(Config.fromstring(text, '.py').to_dict()) for text in (written, present))
    except Exception as error:
        return f'it cannot be read any more: {text_of(error)}'
    return differences(before, now, ('as written', 'now')) or 'its text, but no setting'


def _stages(tools: Path, work_dir: Path, config: Path, coco: CocoSet, iters: int) -> list[Stage]:
    checkpoint, detections = work_dir / f'iter_{iters}.pth', work_dir / 'detections'
    queries, drawn = work_dir / 'queries', work_dir / 'pictures'
    analysis = ['--names', work_dir.name, '--images', NUM_IMAGES_ANALYZED, '--pictures', 1]

    def draw() -> None:
        images = draw_run(
            coco.val_ann,
            coco.val_images,
            f'{detections}.bbox.json',
            drawn,
            num_images=NUM_IMAGES_DRAWN,
            score_thr=SCORE_THR,
        )
        contact_sheet(images, 2, work_dir / 'pictures.png')

    return [
        Stage(
            'training',
            f'training on {coco.train_images}: {iters} steps, classes {", ".join(coco.classes)}',
            checkpoint,
            lambda: _run(tools / 'train.py', config, '--work-dir', work_dir),
        ),
        Stage(
            'evaluation',
            f'evaluating {checkpoint.name} on {coco.val_images}',
            Path(f'{detections}.metrics.json'),
            lambda: _run(tools / 'test.py', config, checkpoint, '--work-dir', work_dir / 'test', '--out', detections),
        ),
        Stage('drawing', f'drawing detections of up to {NUM_IMAGES_DRAWN} images', work_dir / 'pictures.png', draw),
        Stage(
            'analysis',
            'looking at what the queries select, and where they go',
            queries / 'index.html',
            lambda: _run(tools / 'analyze_queries.py', config, checkpoint, '--out', queries, *analysis, '--restart'),
        ),
    ]


def _default_work_dir(data: str | None) -> Path:
    return Path('work_dirs') / ('quickstart' if data is None else f'quickstart_{Path(data).resolve().stem}')


def _data(data: str | None, work_dir: Path, check: Check) -> CocoSet:
    if data is not None:
        return read_data(data, out=work_dir / 'annotations', option='--work-dir', check=check)
    coco = find_coco_set(build_digits(Path('data') / 'digits'))
    check({str(path): checksum(path) for path in (coco.train_ann, coco.val_ann)}, None)
    return coco


def _options(args: argparse.Namespace) -> dict[str, Any]:
    data = 'handwritten digits' if args.data is None else str(Path(args.data).resolve())
    return {'--data': data, '--iters': args.iters, '--image-size': args.image_size, '--seed': args.seed}


def _set_aside(work_dir: Path) -> None:
    target = set_aside(work_dir, also=(*_WRITTEN, *_RESULTS))
    if target is not None:
        print(f'the earlier run is in {target} now')


def enough_queries(coco: CocoSet) -> int:
    """At least two for each object of the fullest image, from 50, the shipped config's number, to 300, RT-DETR's."""
    fullest = 0
    for path in (coco.train_ann, coco.val_ann):
        by_image = Counter(annotation['image_id'] for annotation in read_coco(path).annotations)
        fullest = max([fullest, *by_image.values()])
    return min(MOST_QUERIES, max(FEWEST_QUERIES, 2 * fullest))


def config_text(coco: CocoSet, *, iters: int, image_size: int, seed: int = 0, num_queries: int = FEWEST_QUERIES) -> str:
    """A config that trains the quickstart's model on ``coco``, for people to read and go on from."""
    return f'''"""RT-DETR-R18 on {coco.train_images.name}, written by iouquery quickstart. Yours to change."""
_base_ = [{config_path(BASE)!r}]

classes = {tuple(coco.classes)!r}
image_scale = ({image_size}, {image_size})
max_iters = {iters}
warmup_iters = min(_base_.warmup_iters, max(2, max_iters // 6))  # shorter in a short run
num_queries = {num_queries}  # at least two for each object of the fullest image

model = dict(
    bbox_head=dict(num_classes=len(classes), query_selector=dict(num_queries=num_queries)),
    test_cfg=dict(max_per_img=num_queries, keep_selected=True),  # kept for QuerySelectionMetric
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
            dict(type='LoadImageFromFile', _scope_='mmdet_iouquery', on_error='skip'),
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
            dict(type='LoadImageFromFile', _scope_='mmdet_iouquery'),
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
    dict(_base_.param_scheduler[0], end=warmup_iters),
    dict(_base_.param_scheduler[1], begin=max_iters // 2, end=max_iters),
]
default_hooks = dict(checkpoint=dict(interval=max(1, max_iters // 4)))
randomness = dict(seed={seed})
'''


def _run(program: Path, *arguments: object) -> None:
    """Run a tool with this interpreter; its own message has said why when it fails."""
    status = run_child(program, *arguments)
    if status:
        raise InputError(f'{program.name} ended with status {status}; its own message, with the remedy, stands above')


def _say(text: str) -> None:
    print(f'\n== {text}', flush=True)


def _summary(work_dir: Path, config: Path, iters: int) -> None:
    metrics = json.loads((work_dir / 'detections.metrics.json').read_text(encoding='utf-8'))
    ap = {name: next((v for k, v in metrics.items() if k.endswith(f'bbox_{name}')), -1.0) for name in ('mAP', 'mAP_50')}
    logs = sorted(work_dir.glob('*/*.log'))
    rows = [
        ('COCO AP', f'{ap["mAP"]:.3f}   (IoU 0.50:0.95; at 0.50: {ap["mAP_50"]:.3f})'),
        ('pictures', f'{work_dir / "pictures.png"}   (each alone in {work_dir / "pictures"})'),
        ('queries', f'{work_dir / "queries" / "index.html"}   (a page to open in a browser)'),
        ('checkpoint', work_dir / f'iter_{iters}.pth'),
        ('config', config),
        ('detections', work_dir / 'detections.bbox.json'),
        ('training log', logs[-1] if logs else work_dir),
    ]
    for name, value in rows:
        print(f'{name:>13}  {value}')
