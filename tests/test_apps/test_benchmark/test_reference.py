"""The authors' code as a side: what is asked of it, and what its criterion is given. A stand-in takes its place."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from mmdet_iouquery.apps.benchmark.criterion import Case, random_predictions
from mmdet_iouquery.apps.benchmark.models import FAMILIES, FAMILY_OF, teacher_map
from mmdet_iouquery.apps.benchmark.reference import REPOSITORIES, Reference
from mmdet_iouquery.apps.benchmark.reference_outputs import constants, dfine_outputs, rtdetr_outputs, rtdetrv2_outputs
from mmdet_iouquery.errors import InputError

STAND_IN = """
import torch
def load_config(path, cfg=dict()):
    cfg[path] = None
    return cfg
class YAMLConfig:
    def __init__(self, path, **settings):
        self.model = torch.nn.Identity()
        self.model.read = [*load_config(path)]
        self.model.register_buffer('bias_mask', torch.tensor([float('nan'), float('inf'), 0.0]))
        self.model.path, self.model.settings = path, settings
        self.criterion = lambda outputs, targets: {'a': outputs['pred_boxes'].sum(), 'b': targets[0]['boxes'].sum()}
"""
CASE, CPU = Case(images=2, objects=3, queries=4, layers=3), torch.device('cpu')


@pytest.fixture(autouse=True)
def _modules_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, 'path', [*sys.path])
    for name in [f'{name}{inner}' for name in ('src', 'engine') for inner in ('', '.core', '.core.yaml_utils')]:
        monkeypatch.delitem(sys.modules, name, raising=False)


def clone(folder: Path, family: str) -> Reference:
    repository = REPOSITORIES[family]
    (folder / repository.zoo).mkdir(parents=True)
    (folder / repository.package / 'core').mkdir(parents=True)
    (folder / repository.package / '__init__.py').touch()
    (folder / repository.package / 'core' / '__init__.py').write_text('from .yaml_utils import YAMLConfig')
    (folder / repository.package / 'core' / 'yaml_utils.py').write_text(STAND_IN)
    return Reference(folder, family)


@pytest.mark.parametrize(
    ('name', 'config'),
    [
        ('R18', 'configs/rtdetr/rtdetr_r18vd_6x_coco.yml'),
        ('R50-M', 'configs/rtdetr/rtdetr_r50vd_m_6x_coco.yml'),
        ('R101', 'configs/rtdetr/rtdetr_r101vd_6x_coco.yml'),
        ('RT-DETRv2-R18', 'configs/rtdetrv2/rtdetrv2_r18vd_120e_coco.yml'),
        ('RT-DETRv2-R50-M', 'configs/rtdetrv2/rtdetrv2_r50vd_m_7x_coco.yml'),
        ('RT-DETRv2-R101', 'configs/rtdetrv2/rtdetrv2_r101vd_6x_coco.yml'),
        ('D-FINE-N', 'configs/dfine/dfine_hgnetv2_n_coco.yml'),
        ('DEIM-S', 'configs/deim_dfine/deim_hgnetv2_s_coco.yml'),
        ('DEIM-RT-DETRv2-R34', 'configs/deim_rtdetrv2/deim_r34vd_120e_coco.yml'),
        ('DEIM-RT-DETRv2-R50-M', 'configs/deim_rtdetrv2/deim_r50vd_m_60e_coco.yml'),
        ('DEIMv2-Pico', 'configs/deimv2/deimv2_hgnetv2_pico_coco.yml'),
        ('DEIMv2-S', 'configs/deimv2/deimv2_dinov3_s_coco.yml'),
        ('ECDet-S', 'configs/ecdet/ecdet_s.yml'),
        ('RT-DETRv4-M', 'configs/rtv4/rtv4_hgnetv2_m_coco.yml'),
    ],
)
def test_a_model_is_built_by_the_authors_config_without_downloads(name: str, config: str, tmp_path: Path) -> None:
    reference = clone(tmp_path, FAMILY_OF[name])
    (tmp_path / config).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / config).touch()
    for side, size in ((None, None), (64, [64, 64])):
        model = reference.model(name, side)
        assert model.path == str(tmp_path / config)
        assert model.bias_mask.tolist() == [1.0, float('inf'), 0.0], 'a mask that is not filled hides nothing'
        settings = model.settings
        assert settings['PResNet'] == settings['HGNetv2'] == {'pretrained': False}
        assert settings['DINOv3STAs']['weights_path'] is settings['ViTAdapter']['weights_path'] is None
        names = ('HybridEncoder', 'RTDETRTransformer') if FAMILY_OF[name] == 'rtdetr' else ()
        holders = [settings[part] for part in names] or [settings]
        assert all(holder.get('eval_spatial_size') == size for holder in holders)
    again = pickle.loads(pickle.dumps(reference))
    assert (again.folder, again.family) == (tmp_path, FAMILY_OF[name])


def test_a_second_size_does_not_inherit_the_first(tmp_path: Path) -> None:
    """The authors' loader keeps what it has read in a default argument."""
    reference = clone(tmp_path, 'dfine')
    for name in 'lnl':
        read = reference.model(f'D-FINE-{name.upper()}', None).read
        assert read == [str(tmp_path / f'configs/dfine/dfine_hgnetv2_{name}_coco.yml')]


def test_the_loss_is_the_sum_of_what_the_authors_criterion_gives(tmp_path: Path) -> None:
    reference = clone(tmp_path, 'dfine')
    decoded, _ = random_predictions(CASE, CPU, refined=True)
    boxes = [torch.rand(3, 4), torch.rand(2, 4)]
    targets = reference.targets([torch.zeros(3), torch.zeros(2)], boxes)
    expected = decoded.matching_predictions.boxes[-1].sum() + boxes[0].sum()
    assert reference.loss_of('D-FINE-N', decoded, targets)().item() == pytest.approx(expected.item())


class Student(torch.nn.Module):
    def forward(self, images: Tensor, targets: list, teacher_encoder_output: Tensor) -> dict[str, Tensor]:
        return {'pred_boxes': targets[0]['boxes'], 'teacher': teacher_encoder_output}


class TaughtCriterion:
    losses, weight_dict = ['boxes', 'distill'], {'loss_distill': 5.0}

    def __call__(self, outputs: dict[str, Tensor], targets: list) -> dict[str, Tensor]:
        assert self.losses == ['boxes']
        return {'boxes': outputs['pred_boxes'].sum()}

    def loss_distillation(self, outputs: dict[str, Tensor], *_: object) -> dict[str, Tensor]:
        return {'loss_distill': outputs['teacher'].sum()}


def test_the_loss_of_a_student_counts_its_teachers_map_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = clone(tmp_path, 'rtdetrv4')
    monkeypatch.setattr(reference, '_config', lambda name: SimpleNamespace(criterion=TaughtCriterion()))
    images, boxes = torch.zeros(2, 3, 64, 96), torch.rand(3, 4)
    targets = reference.targets([torch.zeros(3)] * 2, [boxes] * 2)
    taught = teacher_map(images)
    assert taught.shape == (2, 768, 2, 3)
    expected = boxes.sum() + 5 * taught.sum()
    assert reference.loss('RT-DETRv4-S', Student(), images, targets).item() == pytest.approx(expected.item())


@pytest.mark.parametrize('family', REPOSITORIES)
def test_a_folder_that_is_not_the_authors_code_is_refused(family: str, tmp_path: Path) -> None:
    address, commit, folder, _, zoo = REPOSITORIES[family][:5]
    with pytest.raises(InputError, match=f'no {zoo} in there; give {folder} of {address} at {commit}'):
        Reference(tmp_path, family)
    (tmp_path / zoo).mkdir(parents=True)
    with pytest.raises(InputError, match=r'it does not import \(.*\); install what it needs'):
        Reference(tmp_path, family)


def test_every_family_has_its_repository() -> None:
    assert list(FAMILIES) == list(REPOSITORIES)


def joined(noisy: list[dict[str, Tensor]], matching: list[dict[str, Tensor]], key: str) -> Tensor:
    """(L, B, P + Q, ...)."""
    return torch.stack([torch.cat([a[key], b[key]], dim=1) for a, b in zip(noisy, matching)])


def test_outputs_in_rtdetr_s_form_hold_every_prediction_once() -> None:
    decoded, leaves = random_predictions(CASE, CPU, refined=False)
    outputs = rtdetr_outputs(decoded)
    *earlier, encoder = outputs['aux_outputs']
    matching = [*earlier, {key: outputs[key] for key in ('pred_logits', 'pred_boxes')}]
    held = [joined(outputs['dn_aux_outputs'], matching, key) for key in ('pred_logits', 'pred_boxes')]
    held += [encoder['pred_logits'][None], encoder['pred_boxes'][None]]
    assert all(torch.equal(x, leaf) for x, leaf in zip(held, leaves)) and len(held) == len(leaves)


def test_outputs_in_rtdetrv2_s_form_hold_every_prediction_once() -> None:
    """Denoising by two names: RT-DETRv2's criterion reads one, DEIM's the other."""
    decoded, leaves = random_predictions(CASE, CPU, refined=False)
    outputs = rtdetrv2_outputs(decoded)
    matching = [*outputs['aux_outputs'], {key: outputs[key] for key in ('pred_logits', 'pred_boxes')}]
    for noisy in (outputs['dn_aux_outputs'], outputs['dn_outputs']):
        held = [joined(noisy, matching, key) for key in ('pred_logits', 'pred_boxes')]
        held += [outputs['enc_aux_outputs'][0][key][None] for key in ('pred_logits', 'pred_boxes')]
        assert all(torch.equal(x, leaf) for x, leaf in zip(held, leaves)) and len(held) == len(leaves)


def test_outputs_in_dfine_s_form_hold_every_prediction_once() -> None:
    decoded, leaves = random_predictions(CASE, CPU, refined=True)
    outputs, noisy = dfine_outputs(decoded), dfine_outputs(decoded)['dn_outputs']
    last = {key: value for key, value in outputs.items() if isinstance(value, Tensor)}
    matching, keys = [*outputs['aux_outputs'], last], ('pred_logits', 'pred_boxes')
    held = [joined(noisy, matching, key) for key in keys]
    held += [outputs['enc_aux_outputs'][0][key][None] for key in keys]
    held += [joined(noisy, matching, 'pred_corners').unflatten(-1, (4, 33))]
    held += [joined([outputs['dn_pre_outputs']], [outputs['pre_outputs']], key) for key in keys]
    assert all(torch.equal(x, leaf) for x, leaf in zip(held, leaves)) and len(held) == len(leaves)
    references = joined(noisy, matching, 'ref_points')
    assert torch.equal(references, leaves[-1].expand_as(references)) and not references.requires_grad
    for layers, of_last in ((outputs['aux_outputs'], last), (noisy, noisy[-1])):
        for layer in layers:
            assert torch.equal(layer['teacher_corners'], of_last['pred_corners'])
            assert torch.equal(layer['teacher_logits'], of_last['pred_logits'])
    assert 'teacher_corners' not in outputs


def test_constants_are_the_positives_of_each_image_and_what_the_bins_are_made_of() -> None:
    """3 objects, 33 groups of 3 positives and 3 negatives."""
    decoded, _ = random_predictions(CASE, CPU, refined=True)
    fixed = constants(decoded)
    positives = [6 * group + i for group in range(33) for i in range(3)]
    assert [index.tolist() for index in fixed['dn_meta'].pop('dn_positive_idx')] == [positives, positives]
    assert fixed['dn_meta'] == {'dn_num_group': 33, 'dn_num_split': [198, 4]}
    assert fixed['up'].tolist() == [0.5] and fixed['reg_scale'].tolist() == [4.0]
