"""With no part named an adapter is its parent, and with its own path forced it computes the parent's losses."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from helpers import random_batch
from hosts import HOSTS, flat, host_config, mmdets_to_ours, nms_in_torch
from mmdet.registry import MODELS
from mmdet.structures import SampleList
from tolerances import within
from torch import Tensor, nn

SIZE = (96, 128)


@pytest.fixture(scope='module', autouse=True)
def _nms() -> Iterator[None]:
    with nms_in_torch():
        yield


def built(cfg: Any, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    model = MODELS.build(copy.deepcopy(cfg))
    model.init_weights()
    return model


def batch(counts: list[int], *, padded: bool) -> tuple[Tensor, SampleList]:
    torch.manual_seed(3)
    images, samples = random_batch(counts, *SIZE, num_classes=80)
    if padded:  # the second image is smaller than the first
        samples[1].set_metainfo({'img_shape': (70, 101), 'ori_shape': (70, 101)})
        box = samples[1].gt_instances.bboxes
        samples[1].gt_instances.bboxes = box * box.new_tensor([101 / 128, 70 / 96] * 2)
    return images, samples


def losses_of(model: nn.Module, images: Tensor, samples: SampleList) -> dict[str, Tensor]:
    torch.manual_seed(5)  # denoising and dropout
    return flat(model.train().loss(images, samples))


@pytest.fixture(scope='module', params=HOSTS)
def pair(request: pytest.FixtureRequest) -> tuple[nn.Module, nn.Module]:
    """The parent, and its adapter with nothing named, holding the parent's weights."""
    cfg = host_config(request.param)
    parent = built(cfg)
    adapter = built({**cfg, 'type': HOSTS[request.param].adapter}, seed=1)
    adapter.load_state_dict(parent.state_dict(), strict=True)
    return parent, adapter


@pytest.mark.parametrize('padded', [False, True])
def test_same_outputs_and_losses(pair: tuple[nn.Module, nn.Module], padded: bool) -> None:
    parent, adapter = pair
    assert isinstance(adapter, type(parent)) and not adapter.has_parts
    assert [name for name, _ in parent.named_modules()] == [name for name, _ in adapter.named_modules()]
    images, samples = batch([2, 3], padded=padded)
    ours, theirs = losses_of(adapter, images, samples), losses_of(parent, images, samples)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in theirs)
    with torch.no_grad():
        ours, theirs = (
            [x.pred_instances for x in m.eval().predict(images, copy.deepcopy(samples))] for m in (adapter, parent)
        )
    for actual, expected in zip(ours, theirs):
        assert torch.equal(actual.bboxes, expected.bboxes) and torch.equal(actual.scores, expected.scores)


def test_without_scale_factor_nothing_was_resized(pair: tuple[nn.Module, nn.Module]) -> None:
    """The parent needs one told; the adapter takes 1, as from a test pipeline without ``Resize``."""
    parent, adapter = pair
    images, with_factor = batch([1, 1], padded=False)
    without_factor = copy.deepcopy(with_factor)
    for sample in without_factor:
        del sample.scale_factor
    with torch.no_grad():
        theirs, ours = parent.eval().predict(images, with_factor), adapter.eval().predict(images, without_factor)
    for expected, actual in zip(theirs, ours):
        assert len(actual.pred_instances) and torch.equal(actual.pred_instances.bboxes, expected.pred_instances.bboxes)


def forced(name: str, **changes: Any) -> tuple[nn.Module, nn.Module]:
    """The parent, and its adapter made to run its own path with all of the parent's parts."""
    cfg = host_config(name, sigmoid=True, **changes)
    parent = built(cfg)
    adapter = built({**cfg, 'type': HOSTS[name].adapter, 'quality': 'giou'}, seed=1)
    adapter.criterion.quality = 'iou'
    assert adapter.has_parts
    adapter.load_state_dict(parent.state_dict(), strict=True)
    return parent, adapter


@pytest.mark.parametrize(
    ('name', 'loss'),
    # mmdet's DDQ head can't hand a varifocal loss its IoU: see test_ddq.py
    [(name, loss) for name in HOSTS for loss in ('focal', 'varifocal') if (name, loss) != ('DDQDETR', 'varifocal')],
)
def test_own_path_computes_the_parents_losses(name: str, loss: str) -> None:
    """Selection, denoising, decoding and criterion, each through our records, give what the parent computes."""
    parent, adapter = forced(name, loss=loss)
    for padded in (False, True):
        images, samples = batch([2, 3], padded=padded)
        ours, theirs = losses_of(adapter, images, samples), losses_of(parent, images, samples)
        assert ours.keys() == theirs.keys()
        for term in theirs:
            torch.testing.assert_close(ours[term], theirs[term].squeeze(), **within('sum'), msg=term)
        with torch.no_grad():
            actual, expected = (
                m.eval().predict(images, copy.deepcopy(samples))[1].pred_instances for m in (adapter, parent)
            )
        torch.testing.assert_close(actual.scores, expected.scores, **within('unit'))
        torch.testing.assert_close(actual.bboxes, expected.bboxes, **within('px'))


def test_dab_detr_of_our_parts_is_mmdets_on_equal_weights() -> None:
    """Learned anchors and the dense decoder of this package, around mmdet's backbone, neck and encoder."""
    cfg = host_config('DABDETR')
    parent = built(cfg)
    parts = {'query_selector': {'type': 'LearnedAnchors'}, 'decoder': {'type': 'DABDecoder', 'num_layers': 2}}
    ours = built({**cfg, 'type': 'IoUQueryDABDETR', **parts}, seed=1)
    state = {}
    for key, value in parent.state_dict().items():
        if key.startswith('decoder.') or key.startswith('bbox_head.'):
            key = 'decoder.' + mmdets_to_ours(key.partition('.')[2])
        state[key] = value
    anchors_unact = state.pop('query_embedding.weight')
    state['query_selector.xy_unact'], state['query_selector.wh_unact'] = anchors_unact[:, :2], anchors_unact[:, 2:]
    ours.load_state_dict(state, strict=True)
    for padded in (False, True):
        images, samples = batch([2, 3], padded=padded)
        our_losses, parent_losses = losses_of(ours, images, samples), losses_of(parent, images, samples)
        assert our_losses.keys() == parent_losses.keys()
        for term in parent_losses:
            torch.testing.assert_close(our_losses[term], parent_losses[term].squeeze(), **within('sum'), msg=term)
        with torch.no_grad():
            actual, expected = (
                m.eval().predict(images, copy.deepcopy(samples))[1].pred_instances for m in (ours, parent)
            )
        torch.testing.assert_close(actual.scores, expected.scores, **within(torch.float32))
        torch.testing.assert_close(actual.bboxes, expected.bboxes, **within('px'))


@pytest.mark.parametrize('name', ['DeformableDETR', 'DINO'])
@pytest.mark.parametrize('training', [False, True])
def test_the_parents_choice_of_tokens_is_known(name: str, training: bool) -> None:
    """The boxes that the parent proposes for the tokens named are the queries' anchors."""
    cfg = host_config(name)
    adapter = built({**cfg, 'type': HOSTS[name].adapter}).train(training)
    for parameter in adapter.bbox_head.reg_branches[-1].parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    images, samples = batch([2, 3], padded=True)
    with torch.no_grad():
        decoded = adapter.run_parts(adapter.extract_feat(images), samples)
        memory, index = decoded.memory, decoded.selection.token_index
        shapes = torch.tensor(memory.spatial_shapes)
        tokens, proposals = adapter.gen_encoder_output_proposals(memory.tokens, memory.padding, shapes)
        boxes_unact = adapter.bbox_head.reg_branches[-1](tokens) + proposals
        expected = boxes_unact.gather(1, index.unsqueeze(-1).expand(-1, -1, 4)).sigmoid()
    assert index.shape == (2, 20) and all(len(set(row.tolist())) == 20 for row in index)
    torch.testing.assert_close(decoded.selection.queries.anchors_unact.sigmoid(), expected, **within(torch.float32))
