"""Mistakes in a config of D-FINE or DEIM end in one sentence with the remedy, before training."""

from __future__ import annotations

from pathlib import Path

import pytest
from hosts import host_config
from mmdet.registry import MODELS
from mmengine.config import Config, ConfigDict
from runs import SMALL_MODEL

from mmdet_iouquery import find_coco_set
from mmdet_iouquery.apps.quickstart.command import config_text
from mmdet_iouquery.apps.quickstart.digits import build_digits
from mmdet_iouquery.engine import launch
from mmdet_iouquery.engine.preflight.model_mistakes import check_matching_costs
from mmdet_iouquery.errors import InputError

SMALL_DFINE = """
model['backbone'] = dict(_delete_=True, type='HGNetv2', arch='Atto', out_indices=(1, 2))
model['neck'].update(in_channels=[256, 256], fusion='elan', downsample='separable', lateral_act=False)
head = model['bbox_head']
head.update(in_channels=[32] * 2, project='unequal', criterion=dict(union_matching=True))
head['decoder'].update(_delete_=True, type='DistributionDecoder', num_points=[6, 6])
head['criterion'].update(
    loss_fgl=dict(type='FineGrainedLocalizationLoss'), loss_ddf=dict(type='DistributionDistillationLoss')
)
"""
"""Goes behind :data:`SMALL_MODEL`: two levels, a layer, all of D-FINE's losses."""
SOFT_MAL = "dict(_delete_=True, type='MatchabilityAwareLoss', use_sigmoid=False)"
MISTAKES: dict[str, tuple[str, ...]] = {
    "head['decoder']['num_points'] = [3, 6, 3]": (
        'model.bbox_head.decoder: num_points=[3, 6, 3] names the points of 3 levels, but num_levels is 2',
        'give one number for all levels, or one for each',
    ),
    "head['decoder']['reg_max'] = 33": ('model.bbox_head.decoder: reg_max must be even', 'got 33: name 32 or 34;'),
    "head['decoder'] = dict(num_layers=1)": (
        'model.bbox_head.criterion: loss_fgl and loss_ddf are of the distributions of a DistributionDecoder',
        'the decoder is DeformableDecoder',
        "name decoder=dict(type='DistributionDecoder'), or leave the two losses out",
    ),
    f"head['criterion']['loss_cls'] = {SOFT_MAL}": (
        'MatchabilityAwareLoss scores each class by a sigmoid of its own, but use_sigmoid is False',
        'leave use_sigmoid out',
    ),
    "head['criterion']['loss_cls'] = dict(_delete_=True, type='CrossEntropyLoss')": (
        'model.bbox_head.criterion: loss_cls=CrossEntropyLoss scores classes by a softmax',
        "name a loss of sigmoids, such as dict(type='IoUVarifocalLoss')",
    ),
    "model['neck']['in_channels'] = [512, 1024]": (
        'a training step fails at model.neck',
        'model.backbone gives 2 maps of 256, 256 channels',
        'model.neck is built for in_channels=[512, 1024]: make one fit the other',
    ),
    "model['backbone']['out_indices'] = (0, 1, 2)": (
        'model.backbone gives 3 maps of 64, 256, 256 channels',
        'model.neck is built for in_channels=[256, 256]: make one fit the other',
    ),
    "head['in_channels'] = [64, 64]": (
        'model.neck gives 2 maps of 32, 32 channels',
        'model.bbox_head is built for in_channels=[64, 64]: make one fit the other',
    ),
    "head['project'] = 'unequl'": ("model.bbox_head: project must be one of ['all', 'unequal'], got 'unequl'",),
    "head['projct'] = 'unequal'": ("argument 'projct'; did you mean project?",),
    "head['criterion']['union_matchin'] = True": ("argument 'union_matchin'; did you mean union_matching?",),
}


@pytest.fixture(scope='module')
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The config of a small D-FINE on four images."""
    root = tmp_path_factory.mktemp('data') / 'digits'
    build_digits(root, num_train=4, num_val=2, image_size=96, progress=False)
    return config_text(find_coco_set(root), iters=1, image_size=64) + SMALL_MODEL + SMALL_DFINE


@pytest.mark.parametrize('mistake', MISTAKES)
def test_one_sentence_before_training(mistake: str, text: str, tmp_path: Path) -> None:
    config = tmp_path / 'config.py'
    config.write_text(f'{text}{mistake}\n')
    with pytest.raises(InputError) as refused:
        launch.train([str(config), '--work-dir', str(tmp_path / 'run')])
    message = str(refused.value)
    assert '\n' not in message and all(words in message for words in MISTAKES[mistake]), message
    assert not list(tmp_path.glob('run/*.pth'))


def test_without_a_mistake_it_trains(text: str, tmp_path: Path) -> None:
    """So that it is the mistake that the cases above are refused for."""
    config = tmp_path / 'config.py'
    config.write_text(text)
    launch.train([str(config), '--work-dir', str(tmp_path / 'run')])
    assert list(tmp_path.glob('run/*.pth'))


@pytest.mark.parametrize('loss', ['varifocal', 'matchability', 'focal'])
def test_sigmoid_scores_are_not_matched_by_a_softmax(loss: str) -> None:
    """mmdet's DETR has the costs of a softmax; a loss alone put into it would train, matched by other scores."""
    model = host_config('DETR', sigmoid=True, loss=loss)
    check_matching_costs(MODELS.build(model), model)
    model.train_cfg.assigner.match_costs[0] = ConfigDict(type='ClassificationCost', weight=1.0)
    if loss == 'focal':  # mmdet's own: for mmdet to judge
        check_matching_costs(MODELS.build(model), model)
        return
    with pytest.raises(
        InputError, match=r"train_cfg.assigner.match_costs\[0\] is a Cl.* name dict\(type='FocalLossCost'"
    ):
        check_matching_costs(MODELS.build(model), Config(model))
