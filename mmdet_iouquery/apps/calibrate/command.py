"""What ``iouquery calibrate`` runs."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.config import Config, ConfigDict
from mmengine.runner import Runner
from numpy.typing import NDArray
from torch.utils.data import DataLoader
from tqdm import tqdm

from ...checkpoints.files import checkpoint_file
from ...command_line import named_files
from ...config_options import differences, read_options
from ...datasets.coco.json_file import read_json
from ...engine.detector import default_device, load_detector, read_config
from ...engine.launch import report_dataset, report_differences
from ...engine.run_settings import settings_of
from ...engine.trained_files import model_files
from ...engine.work_dir import check_writable
from ...errors import InputError
from ...evaluation.selection_quality import Objects, calibration_error
from ...file_io import identity, write_json, write_text
from ...models.dense_heads import RTDETRHead
from .arguments import parser
from .calibration import Calibration, Cut, Judged, best_cut, fit_calibration, held_out, joined, judge

WITHOUT_CUT = 0.5


class Fitted(NamedTuple):
    """What was found on a set."""

    judged: Judged
    overall: Cut | None
    """The best single threshold for all classes; None: nothing is right."""
    by_class: dict[str, Cut | None]
    """By name; None: nothing of the class is right."""
    calibration: Calibration
    errors: dict[str, float]
    """Expected calibration error in [0, 1] over ten bins: ``before``, ``after``, and ``held_out``, where each half of
    the images is calibrated by the other half."""

    @property
    def thresholds(self) -> list[float]:
        """One for each class; where the class gives none, that for all, and ``WITHOUT_CUT`` if there is none either."""
        common = self.overall.threshold if self.overall else WITHOUT_CUT
        return [cut.threshold if cut else common for cut in self.by_class.values()]


def calibrate(arguments: Sequence[str] | None = None) -> None:
    """What :func:`execute` does, with the arguments of a command line."""
    execute(parser().parse_args(arguments))


def execute(args: argparse.Namespace) -> None:
    """Run a model on its validation set, fit thresholds and a calibration, print and write them.

    Raises:
        InputError: something named is missing or does not fit, or the set has no images.
    """
    args.config, args.checkpoint = model_files(named_files(args))
    cfg = _without_thresholds(read_config(args.config, read_options(args.cfg_options)))
    out = Path(re.sub(r'\.(py|json)$', '', args.out))
    check_writable(out.parent, option='--out')
    settings = _settings(args, cfg)
    if _is_finished(out, settings, args.restart):
        print(f'finished before, nothing to do; --restart fits anew\nnumbers: {out}.json   config: {out}.py')
        return
    if not args.no_check:
        report_dataset(cfg, splits=('val',))
    detector = load_detector(cfg, args.checkpoint).to(torch.device(args.device or default_device()))
    report_differences(cfg, args.checkpoint)
    if not isinstance(getattr(detector, 'bbox_head', None), RTDETRHead):
        print('note: thresholds by class and calibration are settings of RTDETRHead; this head may not take them')
    loader = Runner.build_dataloader(cfg.val_dataloader)
    classes = tuple(loader.dataset.metainfo['classes'])
    calibration = fit(joined(judged_images(detector, loader, args.iou), len(classes)), classes)
    print(table(calibration))
    if calibration.overall is None:
        print(
            f'note: {args.checkpoint} has no right detection (IoU of at least {args.iou:g}) on the validation set, so '
            'what is written means nothing; train it for longer, or name a set that it was trained for'
        )
    about = {'config': args.config, 'checkpoint': args.checkpoint, 'iou': args.iou, 'pictures': len(loader.dataset)}
    text = config_text(calibration, cfg.filename, args.checkpoint, args.iou)
    # the config comes last: without it, the fit is not finished
    _with_ending(out, '.py').unlink(missing_ok=True)
    write_json(_with_ending(out, '.json'), {**about, **numbers(calibration), 'settings': settings, 'written': text})
    write_text(_with_ending(out, '.py'), text)
    print(f'numbers: {out}.json   config with these settings: {out}.py')


def _settings(args: argparse.Namespace, cfg: Config) -> dict[str, Any]:
    """All that the outcome depends on, but for the images and annotations themselves."""
    return {'iou': args.iou, 'checkpoint': identity(checkpoint_file(args.checkpoint)), **settings_of(cfg)}


def _is_finished(out: Path, settings: dict[str, Any], restart: bool) -> bool:
    """Whether the files of the same fit are there.

    Raises:
        InputError: there are others, or the config was edited since, and ``restart`` is False.
    """
    config, note = _with_ending(out, '.py'), _with_ending(out, '.json')
    if restart or not config.is_file():
        return False
    noted = read_json(note) if note.is_file() else {}
    remedy = 'name another --out, or replace it with --restart'
    if not isinstance(noted, dict) or noted.get('written') != config.read_text(encoding='utf-8'):
        raise InputError(f'{config} was edited, or not written by this tool; {remedy}')
    differing = differences(noted['settings'], settings)
    if differing:
        raise InputError(f'{config} is of other settings ({differing}); {remedy}')
    return True


def _with_ending(prefix: Path, ending: str) -> Path:
    return prefix.with_name(prefix.name + ending)


def _without_thresholds(cfg: Config) -> Config:
    """The config, its model giving all detections with their own scores."""
    if not cfg.get('val_dataloader'):
        raise InputError(f'{cfg.filename} has no val_dataloader, on which thresholds are fitted; add one')
    settings = cfg.model.setdefault('test_cfg', ConfigDict())
    for name, value in (('score_thr', 0.0), ('calibration', None)):
        if settings.get(name):
            print(
                f'note: model.test_cfg.{name} of the config is left out here; the fit needs all detections as they are'
            )
            settings[name] = value
    return cfg


def judged_images(
    detector: Any, loader: DataLoader[Any], iou: float
) -> Iterator[tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]]:
    """Scores (K,), labels (K,) and verdicts (K,) of each image's detections, and labels (G,) of its objects.

    Ground truth is taken from the data set and not from the pipeline, so it has the pixels of the detections, which are
    those of the image as it came.

    Raises:
        InputError: the set has no images.
    """
    dataset: Any = loader.dataset
    truth = {info['img_id']: info['instances'] for info in map(dataset.get_data_info, range(len(dataset)))}
    if not truth:
        raise InputError(
            'the validation set holds no images to fit thresholds on; name one with images in val_dataloader'
        )
    with torch.no_grad():
        for batch in tqdm(loader, desc='detections', unit='batch'):
            for sample in detector.test_step(batch):
                detections = sample.pred_instances.cpu()
                boxes, scores = detections.bboxes.double().numpy(), detections.scores.double().numpy()
                objects, ignored = _objects(truth[sample.img_id])
                labels = detections.labels.numpy()
                yield scores, labels, judge(boxes, scores, labels, objects, ignored, iou), objects.labels


def _objects(instances: Sequence[dict[str, Any]]) -> tuple[Objects, Objects]:
    """What is to be found, and what is passed over (crowds)."""
    boxes = np.array([instance['bbox'] for instance in instances], dtype=float).reshape(-1, 4)
    labels = np.array([instance['bbox_label'] for instance in instances], dtype=int)
    ignored = np.array([instance.get('ignore_flag', 0) for instance in instances], dtype=bool)
    return Objects(boxes[~ignored], labels[~ignored]), Objects(boxes[ignored], labels[ignored])


def fit(judged: Judged, classes: Sequence[str]) -> Fitted:
    """Thresholds and calibration of judged detections."""
    calibration = fit_calibration(judged.scores, judged.right)
    calibrated = {'before': judged.scores, 'after': calibration(judged.scores), 'held_out': held_out(judged)}
    errors = {name: calibration_error(x, judged.right) if len(x) else 0.0 for name, x in calibrated.items()}
    by_class = {name: best_cut(judged.of_class(label)) for label, name in enumerate(classes)}
    return Fitted(judged, best_cut(judged), by_class, calibration, errors)


def _counts(judged: Judged) -> dict[str, int]:
    return {
        'objects': int(judged.objects.sum()),
        'detections': len(judged.scores),
        'right': int(judged.right.sum()),
    }


def _remark(counts: dict[str, int]) -> str:
    """Why there is no best threshold; empty where there is one."""
    missing = next((kind for kind in ('objects', 'detections') if not counts[kind]), None)
    return f'no {missing}' if missing else '' if counts['right'] else 'no right detection'


def _rows(fitted: Fitted) -> Iterator[tuple[str, dict[str, int], Cut | None, float]]:
    """Name, counts, best cut and threshold of all together and of each class."""
    yield 'all', _counts(fitted.judged), fitted.overall, fitted.overall.threshold if fitted.overall else WITHOUT_CUT
    for label, (name, cut) in enumerate(fitted.by_class.items()):
        yield name, _counts(fitted.judged.of_class(label)), cut, fitted.thresholds[label]


def table(fitted: Fitted) -> str:
    """The thresholds, for a person to read."""
    width = max(len(name) for name in ('class', *fitted.by_class))
    lines = [f'{"class":<{width}}  objects  detections  threshold  precision  recall     F1']
    for name, counts, cut, threshold in _rows(fitted):
        cells = f'{cut.precision:9.3f}  {cut.recall:6.3f}  {cut.f1:5.3f}' if cut else _remark(counts)
        given = f'{counts["objects"]:7}  {counts["detections"]:10}  {threshold:9.4g}'
        lines.append(f'{name:<{width}}  {given}  {cells}')
    if not all(fitted.by_class.values()):
        lines.append('classes without a best threshold have that for all')
    lines.append(
        'expected calibration error: {before:.4f}; calibrated {after:.4f}, and {held_out:.4f} on images that the '
        'calibration has not seen'.format(**fitted.errors)
    )
    return '\n'.join(lines)


def numbers(fitted: Fitted) -> dict[str, Any]:
    """All that was found, for a JSON file."""
    rows = [
        {'class': name, **counts, 'threshold': threshold, **(cut._asdict() if cut else {'remark': _remark(counts)})}
        for name, counts, cut, threshold in _rows(fitted)
    ]
    return {
        'all': {key: value for key, value in rows[0].items() if key != 'class'},
        'classes': rows[1:],
        'calibration': fitted.calibration._asdict(),
        'calibration_error': fitted.errors,
    }


def config_text(fitted: Fitted, base: str, checkpoint: str, iou: float) -> str:
    """A config: ``base`` with the thresholds and the calibration."""
    thresholds = '\n'.join(
        f'            {threshold!r},  # {name!r}' for name, threshold in zip(fitted.by_class, fitted.thresholds)
    )
    scores, precision = (', '.join(map(repr, values)) for values in fitted.calibration)
    common = fitted.overall.threshold if fitted.overall else WITHOUT_CUT
    return f'''"""Thresholds of best F1 and a calibration of the scores, written by iouquery calibrate. Yours to change.

AP needs all detections: measure it without score_thr.
"""
_base_ = [{str(Path(base).resolve())!r}]

# fitted to its validation set at IoU {iou} with {checkpoint!r}
model = dict(
    test_cfg=dict(
        # of scores before the calibration; one for all would be {common!r}
        score_thr=[
{thresholds}
        ],
        # leave it out, and the scores stay as they are
        calibration=dict(
            scores=[{scores}],
            precision=[{precision}],
        ),
    ),
)
'''
