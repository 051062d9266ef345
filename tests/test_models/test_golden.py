"""Parity with the authors' code: outputs, losses, gradients and assignment on equal weights and inputs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import golden_formula as formula
import numpy as np
import pytest
import torch
from helpers import assert_golden_maps, build_detector, difference_as_sets, golden, golden_weights, with_fixed_norms
from tolerances import about, within
from torch import Tensor, nn

from mmdet_iouquery import accelerate_training, restore
from mmdet_iouquery.checkpoints import convert
from mmdet_iouquery.core import denoising_layout
from mmdet_iouquery.core.matching import union_pairs
from mmdet_iouquery.models.losses import set_criterion
from mmdet_iouquery.models.pipeline import select_and_decode
from mmdet_iouquery.structures import Assigner, Decoded, DenoisingQueries, Queries, Targets


@dataclass(frozen=True)
class Golden:
    """What the authors' numbers of one file belong to."""

    config: str
    source: str
    """Whose names the weights have: a source of the converter."""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """Of the config's model, as :func:`helpers.build_detector` takes them."""
    terms: Mapping[str, str] | None = None
    """The authors' name of each of our losses; None: losses are not compared."""
    encoder: str = 'enc_0'
    """End of the authors' names of the encoder's losses."""
    num_gradients: int = 0
    """Parameters whose gradients the file has norms of."""
    num_ties: int = 0
    """Queries whose scores equal that of the first token not chosen to 1e-6, so that another may be chosen."""
    late: bool = False
    """Whether the file has losses by the quality cost of matching too, which the config's assigner then has."""
    num_vote_ties: int = 0
    """Queries for whom two ground truths had as many votes of the union, of which the authors' sort took the later."""
    dtype: torch.dtype = torch.float32
    """Of our predictions."""


VFL = {'loss_cls': 'loss_vfl', 'loss_bbox': 'loss_bbox', 'loss_iou': 'loss_giou'}
EDGES = {'loss_bbox': 'loss_bbox', 'loss_iou': 'loss_giou', 'loss_fgl': 'loss_fgl', 'loss_ddf': 'loss_ddf'}
DFINE = {'source': 'dfine', 'terms': {'loss_cls': 'loss_vfl', **EDGES}}
DEIM = {'source': 'deim', 'terms': {'loss_cls': 'loss_mal', **EDGES}}
DEIMV2 = {**DEIM, 'source': 'deimv2'}
V4 = {'source': 'rtdetrv4', 'terms': DEIM['terms']}
V1 = {'source': 'rtdetr', 'terms': VFL}
V2 = {'source': 'rtdetrv2', 'terms': VFL}
V2_R18 = 'rtdetrv2/rtdetrv2_r18vd_8xb2-120e_coco.py'
CASES = {
    'rtdetr_r18_320x320': Golden('rtdetr/rtdetr_r18vd_8xb2-72e_coco.py', encoder='aux_2', num_gradients=78, **V1),
    'rtdetr_r50_256x320': Golden('rtdetr/rtdetr_r50vd_8xb2-72e_coco.py', encoder='aux_5', num_gradients=84, **V1),
    'v2_r18_320x256': Golden(V2_R18, num_gradients=62, **V2),
    'v2_r18-pts_256x256': Golden(V2_R18, overrides={'decoder__num_points': [3, 5, 2]}, num_gradients=62, **V2),
    # one of 172,800 points lies on a border of two pixels, where single precision decides by its rounding
    'v2_r18-dsp_320x320': Golden(
        'rtdetrv2/rtdetrv2_r18vd_dsp_8xb2-36e_coco.py', num_gradients=60, dtype=torch.double, **V2
    ),
    'dfine_n_320x320': Golden('dfine/dfine_hgnetv2-n_8xb16-160e_coco.py', num_gradients=70, num_ties=1, **DFINE),
    'deim_n_320x320': Golden('deim/deim-dfine_hgnetv2-n_8xb16-160e_coco.py', num_gradients=97, **DEIM),
    'deimrt_r18_320x256': Golden(
        'deim/deim-rtdetrv2_r18vd_8xb2-120e_coco.py',
        'deim',
        terms={**VFL, 'loss_cls': 'loss_mal'},
        num_gradients=97,
        num_vote_ties=1,
    ),
    'deimv2_atto_320x320': Golden(
        'deimv2/deimv2_hgnetv2-atto_8xb16-500e_coco.py',
        'deimv2',
        terms={**VFL, 'loss_cls': 'loss_mal'},
        num_gradients=63,
        late=True,
    ),
    'deimv2_s_320x256': Golden('deimv2/deimv2_vit-s_8xb4-132e_coco.py', num_gradients=103, late=True, **DEIMV2),
    'deimv2_l_256x320': Golden('deimv2/deimv2_vit-l_8xb4-68e_coco.py', num_gradients=103, late=True, **DEIMV2),
    'ecdet_s_256x320': Golden('ecdet/ecdet_ecvit-s_8xb4-74e_coco.py', num_gradients=112, **{**DEIM, 'source': 'ecdet'}),
    'rtv4_s_256x256': Golden('rtdetrv4/rtdetrv4_hgnetv2-s_8xb4-132e_coco.py', num_gradients=102, num_vote_ties=1, **V4),
}
Built = tuple[str, nn.Module]


@pytest.fixture(scope='module', params=CASES)
def case(request: pytest.FixtureRequest) -> Built:
    """Name and model with the authors' weights."""
    chosen = CASES[request.param]
    model = build_detector(chosen.config, **{f'bbox_head__{key}': value for key, value in chosen.overrides.items()})
    model.load_state_dict(convert(golden_weights(request.param), chosen.source), strict=True)
    return request.param, model.eval()


def input_size(name: str) -> tuple[int, int]:
    """Height and width, which a file's name ends with."""
    height, width = map(int, name.rsplit('_', 1)[1].split('x'))
    return height, width


def test_prediction(case: Built) -> None:
    name, model = case
    reference, dtype = golden(name), CASES[name].dtype
    x = torch.from_numpy(formula.image(name, (2, 3, *input_size(name)))).to(dtype)
    with torch.no_grad():
        logits, boxes = model.to(dtype)(x, mode='tensor')
        backbone = model.backbone(x)
        encoder = model.neck(backbone)
        index, scores = selection(model, encoder)
    model.float()
    assert_golden_maps(backbone, reference, 'backbone')
    assert_golden_maps(encoder, reference, 'encoder')
    # tokens of nearly equal score may come in another order
    if 'selected_index' in reference:
        assert all(set(ours) == set(theirs) for ours, theirs in zip(index.tolist(), reference['selected_index']))
        chosen = torch.from_numpy(reference['selected_score'])
        # logits up to seven, behind backbone and neck
        torch.testing.assert_close(scores[:, : index.shape[1]], chosen, rtol=0, atol=2e-5)
        margin = scores[:, index.shape[1] - 1] - scores[:, index.shape[1]]
        torch.testing.assert_close(margin, torch.from_numpy(reference['selection_margin']), **within(torch.float32))
    expected = tuple(torch.from_numpy(reference[key]).to(dtype) for key in ('logits', 'boxes'))
    assert difference_as_sets((logits, boxes), expected, CASES[name].num_ties) < 1e-4
    if CASES[name].num_ties:
        last = index.shape[1] - 1
        assert (scores[:, last - CASES[name].num_ties + 1] - scores[:, last + 1]).max() < 1e-6


def selection(model: nn.Module, maps: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """Chosen tokens (B, Q), and what tokens are ranked by (B, N), highest first."""
    seen: list[Tensor] = []
    handle = model.bbox_head.query_selector.cls_head.register_forward_hook(lambda _, __, out: seen.append(out))
    index = model.bbox_head.run_parts(maps).selection.token_index
    handle.remove()
    return index, seen[0].amax(-1).sort(descending=True).values


def train_step(name: str, model: nn.Module) -> tuple[dict[str, Tensor], Decoded, Targets]:
    """Losses of the golden batch with the authors' denoising draw."""
    reference = golden(name)
    with_fixed_norms(model.train()).backbone.eval()  # without the change of places that DINOv3's ViT trains with
    x = torch.from_numpy(formula.image(f'{name}_train', (3, 3, *input_size(name))))
    truth = formula.targets(name, 3, [3, 0, 7], 80)
    targets = Targets(
        torch.cat([torch.from_numpy(np.asarray(labels)) for labels, _ in truth]).long(),
        torch.cat([torch.from_numpy(boxes) for _, boxes in truth]),
        (3, 0, 7),
    )
    head, layout = model.bbox_head, denoising_layout(targets.counts, 100)
    queries = Queries(
        head.denoising.label_embedding(torch.from_numpy(reference['dn_labels']).long()),
        torch.from_numpy(reference['dn_boxes_unact']),
    )
    mask = layout.attention_mask(head.query_selector.num_queries)
    denoising = DenoisingQueries(queries, mask, layout.pairs, layout.num_groups)
    student, maps = with_student(model, x)
    memory = head.memory(maps)
    decoded = select_and_decode(memory, head.query_selector, head.decoder, lambda *_: denoising, targets)
    losses = head.criterion(decoded, targets)
    if student is not None:
        losses['loss_distill'] = distillation(model.data_preprocessor, student, teacher_map(x, 32))
    return losses, decoded, targets


def with_student(model: nn.Module, x: Tensor) -> tuple[Tensor | None, tuple[Tensor, ...]]:
    """What a distillation compares, where there is one, and the neck's maps."""
    seen: list[Tensor] = []
    name = getattr(model.data_preprocessor, 'student', None)
    handle = model.get_submodule(name or 'neck').register_forward_hook(lambda _, __, out: seen.append(out))
    maps = model.extract_feat(x)
    handle.remove()
    return seen[0] if name else None, maps


def teacher_map(x: Tensor, stride: int) -> Tensor:
    """The features that the authors' student was given as a teacher's."""
    height, width = (side // stride for side in x.shape[-2:])
    name = 'input.teacher' if stride == 32 else 'input.teacher_large'
    return torch.from_numpy(formula.tensor(name, (len(x), 768, height, width)))


def distillation(preprocessor: Any, student: Tensor, teacher: Tensor) -> Tensor:
    """The weighted loss."""
    return preprocessor.loss_distill(preprocessor.project(student), teacher)


def their_union(name: str, image: Tensor, query: Tensor, truth: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The authors' union of the votes, which is held to be ours but where votes tie."""
    votes = Counter(zip(image.tolist(), query.tolist(), truth.tolist()))
    ours = {pair[:2]: pair[2] for pair in zip(*(index.tolist() for index in union_pairs(image, query, truth)))}
    matches = (golden(name)[f'go_match_{i}'] for i in range(3))
    theirs = {(i, int(q)): int(t) + start for i, start, match in zip(range(3), (0, 3, 3), matches) for q, t in match.T}
    differing = [key for key in ours if ours[key] != theirs[key]]
    assert ours.keys() == theirs.keys() and len(differing) == CASES[name].num_vote_ties
    assert all(votes[(*key, ours[key])] == votes[(*key, theirs[key])] and ours[key] < theirs[key] for key in differing)
    pairs = torch.tensor([(*key, theirs[key]) for key in sorted(theirs)])
    return pairs[:, 0], pairs[:, 1], pairs[:, 2]


def their_name(name: str, chosen: Golden, num_layers: int) -> str:
    """The authors' name of one of our losses: aux_i are the layers before the last, dn_i all, pre the initial one."""
    prefix, _, term = name.rpartition('.')
    layer = prefix if prefix == 'pre' else int(prefix[1:]) if prefix else num_layers - 1
    group, _, kind = term.rpartition('loss_')
    if name == 'loss_distill':
        return f'loss/{name}'
    loss = f'loss/{chosen.terms[f"loss_{kind}"]}'
    if group == 'enc_':
        return f'{loss}_{chosen.encoder}'
    if group == 'dn_':
        return f'{loss}_dn_{layer}'
    if prefix == 'pre':
        return f'{loss}_pre'
    return f'{loss}_aux_{layer}' if prefix else loss


@pytest.mark.usefixtures('filtered_small_maps')
@pytest.mark.parametrize('accelerate', [False, True], ids=['plain', 'accelerated'])
@pytest.mark.parametrize('case', [name for name in CASES if CASES[name].terms], indirect=True)
def test_training(case: Built, accelerate: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    name, model = case
    chosen, reference = CASES[name], golden(name)
    # accelerated, deim_n's queries 253 and 254 of the third image, of nearly equal scores, change places
    if chosen.num_vote_ties or (name == 'deim_n_320x320' and not accelerate):
        monkeypatch.setattr(set_criterion, 'union_pairs', partial(their_union, name))
    restore(model)
    model.zero_grad()
    if accelerate:
        accelerate_training(model)
    losses, decoded, targets = train_step(name, model)
    num_layers = len(model.bbox_head.decoder.layers)
    if 'enc_logits_mean_std' in reference:
        logits = decoded.selection.encoder.logits.detach()
        assert [logits.mean().item(), logits.std().item()] == about(reference['enc_logits_mean_std'])

    assert_losses(losses, reference, '', chosen, num_layers)
    total = sum(losses.values())
    assert total.item() == about(float(reference['loss_total']), 'reference sum')

    total.backward()
    norms = {key[len('gradnorm/') :]: reference[key] for key in reference if key.startswith('gradnorm/')}
    assert len(norms) == chosen.num_gradients
    expected = {
        key: float(x) for key, x in convert({k: torch.tensor(x) for k, x in norms.items()}, chosen.source).items()
    }
    gradients = {key: x.grad.norm().item() for key, x in model.named_parameters() if key in expected}
    assert gradients == pytest.approx(expected, rel=1e-3)  # single precision, through all layers and back

    assigner = model.bbox_head.criterion.assigner
    if 'match_last_0' in reference:
        assert_matching(assigner, decoded, reference, 'match_last', targets)
    if chosen.late:
        assigner.by_quality = True
        with torch.no_grad():
            losses, decoded, targets = train_step(name, model)
        assert_losses(losses, reference, 'late_', chosen, num_layers)
        assert_matching(assigner, decoded, reference, 'late_match_last', targets)
        assigner.by_quality = False


@pytest.mark.parametrize('case', [name for name in CASES if 'go_match_0' in golden(name)], indirect=True)
def test_union_of_matchings(case: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of those that do not learn by it."""
    name, model = case
    unions: list[tuple[Tensor, ...]] = []
    monkeypatch.setattr(
        set_criterion, 'union_pairs', lambda *votes: unions.append(their_union(name, *votes)) or unions[-1]
    )
    monkeypatch.setattr(model.bbox_head.criterion, 'union_matching', True)
    restore(model)
    with torch.no_grad():
        train_step(name, model)
    assert len(unions) == 1


def assert_losses(
    losses: dict[str, Tensor], reference: Mapping[str, Any], prefix: str, chosen: Golden, num_layers: int
) -> None:
    """Losses by name are the file's, whose names begin with ``prefix``."""
    begin = f'{prefix}loss/'
    theirs = {key.removeprefix(prefix): float(reference[key]) for key in reference if key.startswith(begin)}
    # the last layer's distributions from themselves, which D-FINE's code gives and DEIM's does not
    assert theirs.pop(f'loss/loss_ddf_dn_{num_layers - 1}', 0.0) == 0.0
    ours = {their_name(key, chosen, num_layers): value.item() for key, value in losses.items()}
    assert ours == about(theirs, 'reference sum')


def assert_matching(
    assigner: Assigner, decoded: Decoded, reference: Mapping[str, Any], field: str, targets: Targets
) -> None:
    """The pairs of the last layer are the file's."""
    pairs = assigner(decoded.matching_predictions.apply(lambda x: x[-1:].detach()), targets)
    starts = np.cumsum([0, *targets.counts])
    for image in range(len(targets.counts)):
        in_image = pairs.image == image
        ours = dict(zip(pairs.truth[in_image].tolist(), pairs.query[in_image].tolist()))
        query, truth = reference[f'{field}_{image}']
        assert ours == {int(t) + int(starts[image]): int(q) for q, t in zip(query, truth)}


@pytest.mark.usefixtures('filtered_small_maps')
@pytest.mark.parametrize('case', ['rtv4_s_256x256'], indirect=True)
def test_distillation(case: Built) -> None:
    """RT-DETRv4's projected map, its loss alone, also against a teacher of a finer grid, and the loss's gradients."""
    name, model = case
    reference, preprocessor = golden(name), model.data_preprocessor
    restore(model)
    model.zero_grad()
    x = torch.from_numpy(formula.image(f'{name}_train', (3, 3, *input_size(name))))
    student, _ = with_student(model.eval(), x)
    projected = preprocessor.project(student)
    torch.testing.assert_close(
        projected[:, ::96, ::4, ::4].detach(), torch.from_numpy(reference['student_slice']), **within('reference map')
    )
    loss, large = (distillation(preprocessor, student, teacher_map(x, stride)) / 5 for stride in (32, 16))
    # one mean, in single precision
    assert loss.item() == pytest.approx(float(reference['loss/loss_distill']) / 5, rel=1e-6)
    assert large.item() == pytest.approx(float(reference['distill_large_teacher_unweighted']), rel=1e-6)  # the same
    loss.backward()
    theirs = {key.split('/')[1]: reference[key] for key in reference if key.startswith('distill_gradnorm/')}
    expected = convert({key: torch.tensor(x) for key, x in theirs.items()}, 'rtdetrv4')
    gradients = {key: model.get_parameter(key).grad.norm().item() for key in expected}
    assert len(expected) == 4
    assert gradients == about({key: float(x) for key, x in expected.items()}, 'reference sum')
