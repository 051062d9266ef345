"""Weights that fit a model which computes something else with them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS

from mmdet_iouquery.checkpoints import convert_back
from mmdet_iouquery.checkpoints.convert_file import convert_file
from mmdet_iouquery.checkpoints.model_values import model_notes
from mmdet_iouquery.checkpoints.notes import checkpoint_notes
from mmdet_iouquery.engine.detector import read_config
from mmdet_iouquery.errors import InputError

DFINE, DEIM = 'dfine/dfine_hgnetv2-n_8xb16-160e_coco.py', 'deim/deim-dfine_hgnetv2-n_8xb16-160e_coco.py'
V2, DISCRETE = 'rtdetrv2/rtdetrv2_r18vd_8xb2-120e_coco.py', 'rtdetrv2/rtdetrv2_r18vd_dsp_8xb2-36e_coco.py'


def meta_of(name: str) -> dict[str, str]:
    return {'cfg': read_config(name).pretty_text}


@pytest.mark.parametrize('name', [DFINE, DEIM, V2, DISCRETE])
def test_the_config_of_the_training_gives_no_note(name: str) -> None:
    assert model_notes(read_config(name), meta_of(name), 'a.pth') == []


def test_deims_weights_in_dfines_model() -> None:
    """They fit, and the decoder has ReLUs in place of SiLUs."""
    (note,) = model_notes(read_config(DFINE), meta_of(DEIM), 'a.pth')
    assert "act_cfg.type is not given in the config, and 'SiLU' in the training that left a.pth" in note


def test_discrete_sampling_is_noted_both_ways() -> None:
    key = 'model.bbox_head.decoder.sampling'
    assert model_notes(read_config(V2), meta_of(DISCRETE), 'a.pth') == [
        f"{key} is not given in the config, and 'discrete' in the training that left a.pth; unless that is meant, take "
        'the config that it was trained with'
    ]
    (note,) = model_notes(read_config(DISCRETE), meta_of(V2), 'a.pth')
    assert note.startswith(f"{key} is 'discrete' in the config, and not given in the training that left a.pth;")


def test_how_a_model_learns_and_chooses_detections_may_differ() -> None:
    cfg = read_config(V2)
    options = {'score_thr': 0.3, 'max_per_img': 100}
    cfg.model.test_cfg.update(options)
    cfg.model.backbone.update(frozen_stages=1, norm_eval=True, init_cfg=None)
    cfg.model.data_preprocessor.pad_size_divisor = 64
    cfg.model.bbox_head.denoising = None
    assert model_notes(cfg, meta_of(V2), 'a.pth') == []
    assert model_notes(cfg, {}, 'a.pth') == model_notes(cfg, {'cfg': 'import os'}, 'a.pth') == []


def test_a_checkpoint_file_is_read_for_it(tmp_path: Path) -> None:
    path = tmp_path / 'a.pth'
    torch.save({'state_dict': {}, 'meta': meta_of(DISCRETE)}, path)
    (note,) = checkpoint_notes(read_config(V2), path)
    assert "'discrete' in the training" in note


@pytest.mark.parametrize(
    ('name', 'target', 'said'),
    [
        (DISCRETE, 'rtdetrv2', "the weights do not tell that sampling is 'discrete' in the decoder: the config of"),
        (
            DEIM,
            'dfine',
            'the weights do not tell that the activation is SiLU in the decoder: the config of dfine has to',
        ),
        (V2, 'rtdetrv2', ''),
        (DISCRETE, 'mmdet', ''),
    ],
)
def test_a_conversion_says_what_the_other_config_has_to(name: str, target: str, said: str, tmp_path: Path) -> None:
    model = MODELS.build(
        {**read_config(name).model, 'backbone': {**read_config(name).model.backbone, 'init_cfg': None}}
    )
    path = tmp_path / 'a.pth'
    torch.save({'state_dict': model.state_dict(), 'meta': meta_of(name)}, path)
    summary = convert_file(path, tmp_path / 'b.pth', 'mmdet', target=target)
    notes = [line for line in str(summary).splitlines() if line.startswith('  note: ')]
    assert [line.startswith(f'  note: {said}') for line in notes] == [True] * bool(said)


@pytest.mark.parametrize(
    ('name', 'target', 'right'),
    [
        ('deimv2/deimv2_vit-s_8xb4-132e_coco.py', 'ecdet', '--to deimv2, which has names for all'),
        ('ecdet/ecdet_ecvit-s_8xb4-74e_coco.py', 'deimv2', '--to ecdet, which has names for all'),
        (DFINE, 'rtdetr', '--to dfine or deim or rtdetrv4, which has names for all'),
        ('dino/dino-4scale_r50_mal_8xb2-12e_coco.py', 'rtdetr', 'with the same kind of backbone?'),
    ],
)
def test_the_project_that_weights_can_be_written_for_is_named(name: str, target: str, right: str) -> None:
    cfg = read_config(name).model
    cfg.backbone.init_cfg = None
    with pytest.raises(InputError, match=r'^unknown key ') as refused:
        convert_back(MODELS.build(cfg).state_dict(), target)
    assert str(refused.value).rstrip('.').endswith(right)
