"""The examples of ``docs/own-parts.md``: they keep the laws, train in RT-DETR and in mmdet's detectors, and export."""

from __future__ import annotations

import contextlib
import io
import re
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exports import SIZE
from helpers import NARROW, RTDETR, small_detector
from image_files import encoded, random_image
from mmengine.config import Config, ConfigDict
from pipelines import built, check_laws, pipeline, run
from test_cells import build_twice, check_cell, narrow, shrink, small_config
from torch import nn

from mmdet_iouquery.deploy import ExportSettings, export_onnx
from mmdet_iouquery.deploy.graph import Deployed
from mmdet_iouquery.deploy.metadata import tokens_needed
from mmdet_iouquery.engine.loggers import add_loggers
from mmdet_iouquery.errors import InputError
from mmdet_iouquery.structures import Memory, Targets
from mmdet_iouquery.testing import (
    check_backbone,
    check_criterion_loss,
    check_decoder,
    check_denoising,
    check_query_selector,
    check_transform,
)

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / 'examples'
PAGE = ROOT / 'docs' / 'own-parts.md'
sys.path.insert(0, str(EXAMPLES))  # as PYTHONPATH=examples

import own_parts  # noqa: E402
from own_parts.decoder import moved  # noqa: E402
from own_parts.loss import AlignLoss  # noqa: E402
from own_parts.selector import LevelBalancedSelector  # noqa: E402
from own_parts.transform import CopySmallObjects  # noqa: E402

LAWS: dict[Callable, dict[str, Any]] = {
    check_query_selector: {'type': 'LevelBalancedSelector'},
    check_decoder: {'type': 'RelativeDecoder', 'num_layers': 2},
    check_denoising: {'type': 'LabelDropDenoising'},
    check_criterion_loss: {'type': 'AlignLoss'},
    check_backbone: {'type': 'SmallMobileNet', 'channels': (16, 32, 64, 128), 'blocks': (1, 1, 1, 1)},
    check_transform: {'type': 'CopySmallObjects', 'copies': 2},
}


@pytest.mark.parametrize('check', LAWS, ids=lambda check: check.__name__)
def test_an_example_keeps_the_laws(check: Callable) -> None:
    check(LAWS[check])


# --- what each is for -------------------------------------------------------------------------------------------------


def test_levels_compete_on_equal_terms() -> None:
    """The finest level's scores are far above the others': it takes all queries but with balance=1."""
    shapes, finest = ((20, 10), (10, 5), (5, 3)), torch.linspace(2, 1, 200)
    logits = torch.cat([finest, torch.linspace(-2, -2.5, 50), torch.linspace(-4, -4.5, 15)])
    numbers = []
    for balance in (0.0, 1.0):
        selector = LevelBalancedSelector(num_classes=1, embed_dims=2, balance=balance)
        selector.proj, selector.cls_head = nn.Identity(), nn.Linear(2, 1)
        with torch.no_grad():
            selector.cls_head.weight.copy_(torch.tensor([[1.0, 0.0]]))
            selector.cls_head.bias.zero_()
        tokens = torch.stack([logits, torch.zeros(265)], dim=-1).expand(2, -1, -1)
        index = selector(Memory(tokens, shapes), 60).token_index
        level = torch.bucketize(index, torch.tensor([200, 250]), right=True)
        numbers.append([row.bincount(minlength=3).tolist() for row in level])
    assert numbers[0] == [[60, 0, 0]] * 2
    score = logits.sigmoid()
    relative = torch.cat([level / level[0] for level in score.split([200, 50, 15])])
    expected = torch.bucketize(relative.topk(60).indices, torch.tensor([200, 250]), right=True).bincount().tolist()
    assert numbers[1] == [expected] * 2 and min(expected) >= 2


def test_boxes_move_in_units_of_their_size() -> None:
    boxes = torch.tensor([[0.5, 0.5, 0.2, 0.4], [0.5, 0.5, 0.02, 0.04]])
    actual = moved(boxes, torch.tensor([0.1, -0.5, 0.0, np.log(2.0)], dtype=torch.float32))
    torch.testing.assert_close(actual, torch.tensor([[0.52, 0.3, 0.2, 0.8], [0.502, 0.48, 0.02, 0.08]]))


def test_labels_are_dropped_as_often_as_asked() -> None:
    boxes = torch.rand(40, 4) * 0.4 + 0.2
    targets = Targets(torch.arange(40) % 3, boxes, (40,))
    for drop in (0.0, 0.3, 1.0):
        part = own_parts.denoising.LabelDropDenoising(num_classes=3, embed_dims=4, num_denoising=4000, drop=drop)
        content = part(targets, 5).queries.content[0]
        hidden = (content == part.label_embedding.weight[4]).all(-1)
        assert hidden.float().mean().item() == pytest.approx(drop, abs=0.03)  # four standard deviations of 4000 draws
        shown = part.label_embedding.weight[torch.arange(40) % 3].repeat(len(hidden) // 40, 1)
        assert torch.equal(content[~hidden], shown[~hidden])


def test_the_loss_by_hand() -> None:
    """A matched box of score 0.5 and IoU 0.64: its target is 0.5 ** 0.25 * 0.64 ** 0.75; the others weigh 0.25."""
    target = 0.5**0.25 * 0.64**0.75
    rows = AlignLoss()(torch.zeros(2, 3), (torch.tensor([1, 3]), torch.tensor([0.64, 0.0])), reduction_override='none')
    log2 = np.log(2.0)
    assert rows.tolist() == pytest.approx([log2 + 2 * 0.25 * log2, 3 * 0.25 * log2])
    logits = torch.logit(torch.tensor([[target]], dtype=torch.float64)).requires_grad_()
    AlignLoss(alpha=0.0)(logits, (torch.tensor([0]), torch.tensor([target]))).backward()
    assert logits.grad.abs().item() < 1e-7  # without the score in it the target is the IoU


def test_small_objects_are_copied_with_their_pixels_and_labels() -> None:
    image = np.zeros((100, 120, 3), np.uint8)
    image[10:20, 30:45], image[50:90, 10:60] = 7, 9
    results = {
        'img': image,
        'gt_bboxes': own_parts.transform.HorizontalBoxes(torch.tensor([[30.0, 10, 45, 20], [10, 50, 60, 90]])),
        'gt_bboxes_labels': np.array([4, 5]),
        'gt_ignore_flags': np.array([False, False]),
    }
    np.random.seed(0)
    after = CopySmallObjects(copies=2, tries=100).transform(dict(results))
    assert after['gt_bboxes_labels'].tolist() == [4, 5, 4, 4] and (image[10:20, 30:45] == 7).all()
    for x1, y1, x2, y2 in after['gt_bboxes'].tensor[2:].int().tolist():
        assert (x2 - x1, y2 - y1) == (15, 10) and (after['img'][y1:y2, x1:x2] == 7).all()
    assert (after['img'] == 7).sum() == 3 * (image == 7).sum() and (after['img'] == 9).sum() == (image == 9).sum()
    results['gt_ignore_flags'] = np.array([True, True])
    assert len(CopySmallObjects().transform(dict(results))['gt_bboxes']) == 2


# --- swapped in -------------------------------------------------------------------------------------------------------

PARTS: dict[str, dict[str, Any]] = {
    'selector': {'bbox_head.query_selector': {'_delete_': True, 'type': 'LevelBalancedSelector', 'num_queries': 84}},
    'decoder': {'bbox_head.decoder.type': 'RelativeDecoder'},
    'denoising': {'bbox_head.denoising': {'_delete_': True, 'type': 'LabelDropDenoising', 'num_denoising': 4}},
    'loss': {'bbox_head.criterion.loss_cls': {'_delete_': True, 'type': 'AlignLoss'}},
    'backbone': {
        'backbone': {'_delete_': True, 'type': 'SmallMobileNet', 'channels': (16, 32, 64, 128)},
        'neck.in_channels': [32, 64, 128],
    },
}
"""Of ``model``, what swaps each part into RT-DETR."""


@pytest.mark.parametrize('name', PARTS)
def test_it_trains_in_rtdetr(name: str, tmp_path: Path) -> None:
    """Three steps, after which the loss has fallen; predictions; weights saved and loaded."""
    config = small_config(RTDETR)
    config.merge_from_dict({f'model.{key}': value for key, value in PARTS[name].items()})
    check_cell(config, *build_twice(config), 'loss', tmp_path, 3)


def example_config(name: str) -> Config:
    config = Config.fromfile(EXAMPLES / 'own_parts' / 'configs' / name)
    config.model.backbone.init_cfg = config.model.data_preprocessor.batch_augments = None
    shrink(config.model)
    return config


def deformable_detr() -> Config:
    config = small_config('deformable_detr/deformable-detr-refine-twostage_r50_denoising_16xb2-50e_coco.py')
    config.model.denoising = ConfigDict(type='LabelDropDenoising', num_denoising=4)
    return config


def dino() -> Config:
    config = example_config('dino-4scale_r50_own-parts_8xb2-12e_coco.py')
    narrow(config.model)
    return config


HOSTS: dict[str, Callable[[], Config]] = {
    'RT-DETR, all at once': lambda: example_config('rtdetr_r18vd_own-parts_8xb2-72e_coco.py'),
    'DINO': dino,
    'Deformable DETR': deformable_detr,
}


@pytest.mark.parametrize('name', HOSTS)
def test_they_train_in_detectors_by_their_configs(name: str, tmp_path: Path) -> None:
    config = HOSTS[name]()
    check_cell(config, *build_twice(config), 'loss', tmp_path, 3)


def test_the_transform_runs_in_the_shipped_pipeline(tmp_path: Path) -> None:
    steps = pipeline('coco', scale=(96, 64))
    config = Config.fromfile(EXAMPLES / 'own_parts' / 'configs' / 'rtdetr_r18vd_own-parts_8xb2-72e_coco.py')
    ours = config.train_dataloader.dataset.pipeline
    assert [step.type for step in ours if step.type != 'CopySmallObjects'] == [step['type'] for step in steps]
    path = tmp_path / 'one.png'
    path.write_bytes(encoded(random_image(120, 80, seed=1), 'PNG'))
    numbers = []
    for transforms in (built(steps), built([*steps[:3], {'type': 'CopySmallObjects', 'copies': 3}, *steps[3:]])):
        np.random.seed(2)
        packed = [run(transforms, path, [[5, 5, 20, 20], [60, 30, 75, 50], [30, 60, 45, 78]]) for _ in range(5)]
        for sample in packed:
            check_laws(sample, (96, 64))
        numbers.append(sum(len(sample['data_samples'].gt_instances) for sample in packed))
    assert numbers[1] > numbers[0]


def test_selector_and_decoder_are_exported(tmp_path: Path) -> None:
    """The exporter compares the file with the model, at several batch sizes, and raises where they differ."""
    changes = {
        'bbox_head__query_selector': {'_delete_': True, 'type': 'LevelBalancedSelector', 'num_queries': 30},
        'bbox_head__decoder__type': 'RelativeDecoder',
    }
    model = small_detector(**{**NARROW, **changes}).eval()
    for parameter in model.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    report = export_onnx(model, tmp_path / 'model.onnx', ExportSettings(size=SIZE))
    assert len(report.parity) > 1 and {parity.batch for parity in report.parity} > {1}


def test_a_file_of_any_size_knows_of_the_selectors_tokens() -> None:
    selector = {'_delete_': True, 'type': 'LevelBalancedSelector', 'num_queries': 30}
    deployed = Deployed(small_detector(**NARROW, bbox_head__query_selector=selector).eval())
    assert tokens_needed(deployed, 30, SIZE) == {'strides': [8, 16, 32], 'min_tokens': 30}
    with pytest.raises(InputError, match=r'an image of 32x32 .* has 21 tokens, too few to choose 30 queries from'):
        tokens_needed(deployed, 21, (32, 32))


def test_a_training_logs_the_selectors_quality(capsys: pytest.CaptureFixture[str]) -> None:
    config = Config.fromfile(EXAMPLES / 'own_parts' / 'configs' / 'rtdetr_r18vd_own-parts_8xb2-72e_coco.py')
    add_loggers(config, ['csv'])
    assert config.val_evaluator[-1].type == 'QuerySelectionMetric' and config.model.test_cfg.keep_selected is True
    assert capsys.readouterr().out == ''


# --- the page ---------------------------------------------------------------------------------------------------------

BLOCK = re.compile(r'^ *```(\w+)(?: title="([^"]+)")?\n(.*?)^ *```$', re.MULTILINE | re.DOTALL)
BLOCKS = [
    (language, title, textwrap.dedent(code))
    for language, title, code in BLOCK.findall(PAGE.read_text(encoding='utf-8'))
]


def test_the_page_quotes_every_example_as_it_is() -> None:
    quoted = {title: code for _, title, code in BLOCKS if title}
    files = {path.relative_to(ROOT).as_posix(): path for path in (EXAMPLES / 'own_parts').rglob('*.py')}
    assert set(quoted) == {name for name in files if not name.endswith('__init__.py')}
    for name, code in quoted.items():
        assert code == files[name].read_text(encoding='utf-8'), f'{PAGE.name} quotes another {name}'


def test_the_other_blocks_of_the_page_run_and_print_what_it_says() -> None:
    names: dict[str, Any] = {}
    ran, printed = 0, ''
    for language, title, code in BLOCKS:
        if language == 'text':
            assert printed == code
        if language == 'python' and not title:
            output = io.StringIO()
            with contextlib.redirect_stdout(output):
                exec(compile(code, PAGE.name, 'exec'), names)
            ran, printed = ran + 1, output.getvalue()
    assert ran > 6


def test_the_laws_that_the_page_names_are_those_of_the_checks() -> None:
    _, table = PAGE.read_text(encoding='utf-8').split('| what | the law that finds it | do instead |\n')
    rows = [line.split(' | ') for line in table.split('\n\n')[0].splitlines()[1:]]
    checks = ''.join(path.read_text(encoding='utf-8') for path in (ROOT / 'mmdet_iouquery' / 'testing').glob('*.py'))
    assert len(rows) > 9
    assert [law for _, law, _ in rows if law not in checks] == []
