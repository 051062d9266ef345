"""Stages of a training: told to transforms in every process and to batch augments, at the right epoch or step."""

from __future__ import annotations

import copy
import pickle
from multiprocessing.reduction import ForkingPickler
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from mmcv.transforms import BaseTransform
from mmdet.registry import HOOKS, TRANSFORMS
from mmengine.dataset import BaseDataset
from mmengine.logging import MessageHub
from torch import nn
from torch.utils.data import DataLoader

from mmdet_iouquery.datasets.multi_image import MultiImageDataset
from mmdet_iouquery.datasets.stages import InStages, enter_stage, staged_transforms
from mmdet_iouquery.engine.hooks import AugmentationTimetableHook
from mmdet_iouquery.errors import InputError
from mmdet_iouquery.models.data_preprocessors import BatchMixUp
from mmdet_iouquery.models.data_preprocessors.batch_blend import STAGE

DEIM = [('plain', 0), ('mosaic', 2), ('strong', 3), ('plain', 5)]


class Packed(BaseTransform):
    """Ends a pipeline as ``PackDetInputs`` does."""

    def transform(self, results: dict) -> dict:
        return {**results, 'inputs': None, 'data_samples': None}


class Note(BaseTransform):
    """Writes its name into the sample."""

    def __init__(self, name: str) -> None:
        self.name = name

    def transform(self, results: dict) -> dict:
        results['seen'] = results['seen'] + self.name
        return results


def in_stages(stages: list[str], *transforms: Any) -> dict:
    return {'type': InStages, 'stages': stages, 'transforms': list(transforms)}


def note(name: str) -> dict:
    return {'type': Note, 'name': name}


PIPELINE = [
    in_stages(['mosaic'], {'type': 'RandomChoice', 'transforms': [[note('m')], [note('m')]]}),
    in_stages(['mosaic', 'strong'], note('d'), in_stages(['strong'], note('e'))),
    note('f'),
]
SEEN = {'plain': 'f', 'mosaic': 'mdf', 'strong': 'def'}


class Numbers(BaseDataset):
    """A hundred samples."""

    def load_data_list(self) -> list[dict]:
        return [{'seen': ''} for _ in range(100)]


def numbers() -> Numbers:
    return Numbers(pipeline=copy.deepcopy(PIPELINE), serialize_data=False)


def seen(batches: Any) -> list[str]:
    return [sample['seen'] for batch in batches for sample in batch]


def runner(dataset: Any, *, epoch: int = 0, epochs: int = 6, model: nn.Module | None = None, **more: Any) -> Any:
    lines: list[str] = []
    return SimpleNamespace(
        epoch=epoch,
        iter=epoch * 10,
        max_epochs=epochs,
        max_iters=epochs * 10,
        train_dataloader=SimpleNamespace(dataset=dataset),
        model=model or nn.Identity(),
        logger=SimpleNamespace(info=lines.append, lines=lines),
        message_hub=MessageHub.get_instance('timetable'),
        **more,
    )


@pytest.mark.parametrize('workers', [0, 2])
def test_every_sample_of_an_epoch_is_augmented_by_its_stage(workers: int) -> None:
    """Workers that live through all epochs are told, too."""
    dataset, hook = numbers(), AugmentationTimetableHook(DEIM)
    loader = DataLoader(dataset, 10, num_workers=workers, persistent_workers=workers > 0, collate_fn=list)
    run = runner(dataset)
    hook.before_train(run)
    for epoch in range(6):
        run.epoch = epoch
        hook.before_train_epoch(run)
        stage = hook.stage_at(epoch)
        assert seen(loader) == [SEEN[stage]] * 100, epoch
        assert run.message_hub.get_info(STAGE) == stage
    assert [hook.stage_at(epoch) for epoch in range(6)] == ['plain', 'plain', 'mosaic', 'strong', 'strong', 'plain']
    messages = [line.rpartition('augmentation: ')[2] for line in run.logger.lines]
    assert messages == [
        'plain, after 0 epochs',
        'mosaic, after 2 epochs',
        'strong, after 3 epochs',
        'plain, after 5 epochs',
    ]


def test_a_transform_that_is_sent_to_a_spawned_worker_is_told_too() -> None:
    """By the pickling that torch sends a data set with, which keeps memory shared."""
    transform = InStages(stages=['mosaic'], transforms=[note('m')])
    sent = pickle.loads(ForkingPickler.dumps(transform))
    transform.enter('mosaic')
    assert sent({'seen': ''})['seen'] == 'm'
    transform.enter('plain')
    assert sent({'seen': ''})['seen'] == ''


@pytest.mark.parametrize('epoch', range(6))
def test_a_resumed_run_is_in_the_stage_of_its_epoch(epoch: int) -> None:
    dataset, hook = numbers(), AugmentationTimetableHook(DEIM)
    run = runner(dataset, epoch=epoch)
    hook.before_train(run)
    hook.before_train_epoch(run)
    assert dataset[0]['seen'] == SEEN[hook.stage_at(epoch)]
    assert 'augmentation_stage' not in run.message_hub.state_dict()['runtime_info']


def test_a_checkpoint_resumes_without_a_warning_about_the_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    messages: list[str] = []
    monkeypatch.setattr('mmengine.logging.message_hub.print_log', lambda text, **_: messages.append(text))
    run = runner(numbers())
    run.message_hub = MessageHub('saved')
    hook = AugmentationTimetableHook(DEIM)
    hook.before_train(run)
    hook.before_train_epoch(run)
    run.message_hub.update_info('epoch', 1)
    resumed = MessageHub('resumed')
    resumed.load_state_dict(run.message_hub.state_dict())
    assert (resumed.get_info('epoch'), resumed.get_info(STAGE), messages) == (1, None, [])


def test_a_timetable_of_steps_without_workers() -> None:
    """As mmengine's loop by iterations calls the hook: a batch is loaded before its step begins."""
    dataset = numbers()
    hook = AugmentationTimetableHook([('plain', 0), ('mosaic', 3), ('strong', 7)], by_epoch=False)
    run, loaded, stages = runner(dataset), [], []
    batches = iter(DataLoader(dataset, 10, collate_fn=list))
    hook.before_train(run)
    hook.before_train_epoch(run)
    for run.iter in range(10):
        loaded.append(next(batches)[0]['seen'])
        hook.before_train_iter(run, run.iter)
        stages.append(run.message_hub.get_info(STAGE))
    assert stages == ['plain'] * 3 + ['mosaic'] * 4 + ['strong'] * 3
    assert loaded == [SEEN[stage] for stage in stages]


def test_transforms_are_found_wherever_they_stand() -> None:
    inner = numbers()
    wrapped = MultiImageDataset(dataset=inner, pipeline=[in_stages(['a'], in_stages(['b']))])
    assert sorted(transform.stages for transform in staged_transforms(wrapped)) == [
        ('a',),
        ('b',),
        ('mosaic',),
        ('mosaic', 'strong'),
        ('strong',),
    ]
    nested = SimpleNamespace(datasets=[wrapped, inner])
    enter_stage(nested, 'strong')
    assert inner[0]['seen'] == SEEN['strong']


def test_a_copy_is_told_for_itself() -> None:
    """And lives in memory that its own workers share."""
    transform = TRANSFORMS.build(in_stages(['mosaic'], note('m')))
    twin = copy.deepcopy(transform)
    transform.enter('mosaic')
    assert transform({'seen': ''})['seen'] == 'm' and twin({'seen': ''})['seen'] == ''
    assert copy.deepcopy(transform)({'seen': ''})['seen'] == 'm'
    assert twin._entered.is_shared()


def test_a_dropped_sample_is_dropped() -> None:
    dropping = {'type': 'FilterAnnotations', 'min_gt_bbox_wh': (1, 1)}
    transform = TRANSFORMS.build(in_stages(['mosaic'], dropping))
    transform.transforms.transforms[0].transform = lambda results: None
    transform.enter('mosaic')
    assert transform({}) is None


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('timetable', 'text'),
    [
        ([], r"timetable must be like \[\('plain', 0\)"),
        (['plain'], 'timetable must be like'),
        ([('plain', 0.5)], 'timetable must be like'),
        ([('plain', 1)], 'must begin at 0 and each after the one before'),
        ([('plain', 0), ('mosaic', 4), ('plain', 4)], 'must begin at 0 and each after the one before'),
    ],
)
def test_what_is_no_timetable(timetable: Any, text: str) -> None:
    with pytest.raises(InputError, match=text):
        HOOKS.build({'type': 'AugmentationTimetableHook', 'timetable': timetable})


def test_a_timetable_outside_the_run() -> None:
    hook = AugmentationTimetableHook(DEIM)
    hook.before_train(runner(numbers(), epochs=6))
    with pytest.raises(
        InputError, match="stage 'plain' begins at 5, and the run has 5 epochs, counted from 0; let it begin earlier"
    ):
        hook.before_train(runner(numbers(), epochs=5))
    steps = AugmentationTimetableHook([('plain', 0), ('mosaic', 60)], by_epoch=False)
    with pytest.raises(InputError, match="stage 'mosaic' begins at 60, and the run has 60 steps"):
        steps.before_train(runner(numbers()))


def test_a_stage_that_never_comes() -> None:
    hook = AugmentationTimetableHook([('plain', 0), ('mosaik', 2), ('strong', 3)])
    text = "InStages waits for stage 'mosaic', and the timetable of AugmentationTimetableHook has mosaik, plain, strong"
    with pytest.raises(InputError, match=text):
        hook.before_train(runner(numbers()))
    hook = AugmentationTimetableHook(DEIM)
    with pytest.raises(InputError, match="BatchMixUp waits for stage 'mix'"):
        hook.before_train(runner(numbers(), model=nn.Sequential(BatchMixUp(stages=['mix']))))


@pytest.mark.parametrize('stages', ['mosaic', [], [1]])
def test_stages_that_are_no_names(stages: Any) -> None:
    with pytest.raises(InputError, match=r"stages must be a list of names such as \['mosaic'\]"):
        TRANSFORMS.build({'type': 'InStages', 'stages': stages, 'transforms': []})


def test_what_fails_in_a_later_stage_fails_before_training() -> None:
    """The pipeline of every stage is tried on an image."""
    from mmdet_iouquery.engine.preflight.first_pass import _try_later_pipelines

    def tried(*transforms: Any) -> None:
        choice = {'type': 'RandomChoice', 'prob': [0.5, 0.5], 'transforms': [list(transforms), []]}
        dataset = Numbers(pipeline=[in_stages(['strong'], choice), packed], serialize_data=False)
        _try_later_pipelines([AugmentationTimetableHook(DEIM)], dataset)
        assert not any(transform._entered for transform in staged_transforms(dataset)), 'tried on copies'

    packed = {'type': Packed}
    np.random.seed(0)
    tried(note('x'))
    with pytest.raises(InputError, match='QuarterMosaic needs further images'):
        tried({'type': 'QuarterMosaic'})
