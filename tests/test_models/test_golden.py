"""Parity with the authors' RT-DETR: outputs, losses, gradients and assignment on equal weights and inputs."""

from __future__ import annotations

import golden_formula as formula
import numpy as np
import pytest
import torch
from helpers import build_detector, golden, golden_weights
from torch import Tensor, nn

from mmdet_iouquery import accelerate_training, restore
from mmdet_iouquery.checkpoints import convert
from mmdet_iouquery.checkpoints.rtdetr import DETECTOR
from mmdet_iouquery.core import denoising_layout
from mmdet_iouquery.models.pipeline import select_and_decode
from mmdet_iouquery.structures import DenoisingQueries, Predictions, Queries, Targets

CASES = {
    'rtdetr_r18_320x320': ('rtdetr/rtdetr_r18vd_8xb2-72e_coco.py', 320, 320),
    'rtdetr_r50_256x320': ('rtdetr/rtdetr_r50vd_8xb2-72e_coco.py', 256, 320),
}
LOSSES = {'loss_cls': 'loss_vfl', 'loss_bbox': 'loss_bbox', 'loss_iou': 'loss_giou'}


@pytest.fixture(scope='module', params=CASES)
def case(request: pytest.FixtureRequest) -> tuple[str, nn.Module]:
    """Name and model with the authors' weights."""
    model = build_detector(CASES[request.param][0])
    model.load_state_dict(convert(golden_weights(request.param), 'rtdetr'), strict=True)
    return request.param, model.eval()


def predict(name: str, model: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, boxes and selected tokens of the golden input."""
    _, height, width = CASES[name]
    x = torch.from_numpy(formula.image(name, (2, 3, height, width)))
    head = model.bbox_head
    with torch.no_grad():
        logits, boxes = model(x, mode='tensor')
        index = head.run_parts(model.extract_feat(x)).selection.token_index
    return logits, boxes, index


def test_prediction(case: tuple[str, nn.Module]) -> None:
    name, model = case
    reference = golden(name)
    logits, boxes, index = (x.numpy() for x in predict(name, model))
    for image in range(2):
        assert set(index[image]) == set(reference['selected_index'][image])
        # tokens of nearly equal score may come in another order: compare query by query under the token's name
        ours, theirs = np.argsort(index[image]), np.argsort(reference['selected_index'][image])
        assert np.abs(logits[image][ours] - reference['logits'][image][theirs]).max() < 1e-4
        assert np.abs(boxes[image][ours] - reference['boxes'][image][theirs]).max() < 1e-4


def train_step(name: str, model: nn.Module) -> tuple[dict[str, Tensor], Predictions, Targets]:
    """Losses of the golden batch with the authors' denoising draw, and the last layer's matching predictions."""
    _, height, width = CASES[name]
    reference = golden(name)
    model.train()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    x = torch.from_numpy(formula.image(f'{name}_train', (3, 3, height, width)))
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
    denoising = DenoisingQueries(queries, layout.attention_mask(300), layout.pairs, layout.num_groups)
    memory = head.memory(model.extract_feat(x))
    decoded = select_and_decode(memory, head.query_selector, head.decoder, lambda *_: denoising, targets)
    losses = head.criterion(decoded, targets)
    last = decoded.matching_predictions.apply(lambda x: x[-1:].detach())
    return losses, last, targets


def their_name(name: str, num_layers: int) -> str:
    """The authors' name of one of our losses: aux_i are the other layers, then the encoder; dn_i all layers."""
    prefix, _, term = name.rpartition('.')
    layer = int(prefix[1:]) if prefix else num_layers - 1
    if term.startswith('enc_'):
        return f'loss/{LOSSES[term[4:]]}_aux_{num_layers - 1}'
    if term.startswith('dn_'):
        return f'loss/{LOSSES[term[3:]]}_dn_{layer}'
    return f'loss/{LOSSES[term]}' + (f'_aux_{layer}' if prefix else '')


@pytest.mark.usefixtures('filtered_small_maps')
@pytest.mark.parametrize('accelerate', [False, True], ids=['plain', 'accelerated'])
def test_training(case: tuple[str, nn.Module], accelerate: bool) -> None:
    name, model = case
    reference = golden(name)
    restore(model)
    if accelerate:
        accelerate_training(model)
    losses, last, targets = train_step(name, model)
    num_layers = len(model.bbox_head.decoder.layers)

    theirs = {key: float(reference[key]) for key in reference if key.startswith('loss/')}
    assert {their_name(key, num_layers) for key in losses} == set(theirs)
    for key, value in losses.items():
        assert value.item() == pytest.approx(theirs[their_name(key, num_layers)], rel=1e-4), key
    total = sum(losses.values())
    assert total.item() == pytest.approx(float(reference['loss_total']), rel=1e-4)

    total.backward()
    parameters = dict(model.named_parameters())
    norms = [key for key in reference if key.startswith('gradnorm/')]
    assert len(norms) > 70
    for key in norms:
        gradient = parameters[DETECTOR.to_ours(key[len('gradnorm/') :])].grad
        assert gradient.norm().item() == pytest.approx(float(reference[key]), rel=1e-3), key
    model.zero_grad()

    pairs = model.bbox_head.criterion.assigner(last, targets)
    starts = np.cumsum([0, *targets.counts])
    for image in range(3):
        mine = pairs.image == image
        ours = dict(zip(pairs.truth[mine].tolist(), pairs.query[mine].tolist()))
        query, truth = reference[f'match_last_{image}']
        assert ours == {int(t) + int(starts[image]): int(q) for q, t in zip(query, truth)}
