"""Parts in mmdet's detectors: what each combination trains, leaves out and refuses."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from helpers import random_batch
from hosts import HOSTS, flat, host_config, nms_in_torch
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from tolerances import within
from torch import nn

from mmdet_iouquery.models.losses import BatchedHungarianAssigner
from mmdet_iouquery.models.query_selectors import LearnedEmbeddings
from mmdet_iouquery.structures import Pairs, Predictions, Targets

SIZE = (64, 96)
SELECTORS: dict[str, dict | None] = {
    'parent': None,
    'iou-aware': {'type': 'IoUAwareQuerySelector'},
    'anchors': {'type': 'LearnedAnchors'},
    'embeddings': {'type': 'LearnedEmbeddings', 'learned_content': True},
}
DENOISING = {'type': 'ContrastiveDenoising', 'num_denoising': 4}
DENSE = ('DETR', 'ConditionalDETR', 'DABDETR')
OWN_DENOISING = ('DINO', 'DDQDETR')


@pytest.fixture(scope='module', autouse=True)
def _nms() -> Iterator[None]:
    with nms_in_torch():
        yield


def decoder_of(name: str) -> dict:
    kind = {} if name in DENSE else {'cross_attention': 'deformable', 'share_bbox_head': False}
    return {'type': 'DABDecoder', 'num_layers': 2, 'feedforward_channels': 64, **kind}


def build(
    name: str, selector: str = 'parent', denoising: bool = False, decoder: bool = False, **more: Any
) -> nn.Module:
    torch.manual_seed(0)
    cfg = host_config(name, sigmoid=True, **more)
    cfg.type = HOSTS[name].adapter
    if SELECTORS[selector]:
        cfg.query_selector = ConfigDict(SELECTORS[selector])
    if denoising:
        cfg.denoising = ConfigDict(DENOISING)
    if decoder:
        cfg.decoder = ConfigDict(decoder_of(name))
    before = copy.deepcopy(cfg)
    model = MODELS.build(cfg)
    assert cfg == before, 'a constructor changed its config'
    return model


def combinations() -> list[tuple[str, str, bool, bool]]:
    """Every host with every selector, with and without denoising and the other decoder, where it makes sense."""
    cases = []
    for name, selector, denoising, decoder in itertools.product(HOSTS, SELECTORS, (False, True), (False, True)):
        boxless = selector == 'embeddings' and not decoder and name not in ('DETR', 'ConditionalDETR')
        nothing = (selector, denoising, decoder) == ('parent', False, False)
        if nothing or boxless or (denoising and name in OWN_DENOISING):
            continue
        cases.append((name, selector, denoising, decoder))
    return cases


# a third of them, which is every part in every host: all of them take minutes
CASES = combinations()[::3]


@pytest.mark.parametrize(('name', 'selector', 'denoising', 'decoder'), CASES)
def test_every_parameter_learns_whatever_the_batch(name: str, selector: str, denoising: bool, decoder: bool) -> None:
    model = build(name, selector, denoising, decoder)
    model.init_weights()
    names = []
    for counts in ([2, 0], [0, 0]):
        model.train().zero_grad()
        losses = flat(model.loss(*random_batch(counts, *SIZE, num_classes=80)))
        names.append(set(losses))
        assert all(torch.isfinite(value) for value in losses.values())
        sum(losses.values()).backward()
        idle = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
        # mmdet's DINO has no denoising queries, nor their embedding in the graph, where a batch has no box
        assert idle == [] or (
            name in OWN_DENOISING and counts == [0, 0] and idle == ['dn_query_generator.label_embedding.weight']
        )
        assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    assert names[0] == names[1]
    assert any(term.startswith('dn_') for term in names[0]) is (denoising or name in OWN_DENOISING)
    images, samples = random_batch([1, 1], *SIZE, num_classes=80)
    with torch.no_grad():
        result = model.eval().predict(images, samples)[0].pred_instances
    assert len(result) == 20 and torch.isfinite(result.bboxes).all() and torch.isfinite(result.scores).all()


@pytest.mark.parametrize('name', HOSTS)
def test_idle_modules_of_the_parent_are_gone_and_the_rest_keep_their_names(name: str) -> None:
    cfg = host_config(name, sigmoid=True)
    parents = set(MODELS.build(copy.deepcopy(cfg)).state_dict())
    ours = set(build(name, 'iou-aware', decoder=True).state_dict())
    idle = ('bbox_head.', 'query_embedding', 'memory_trans', 'pos_trans')
    if name == 'DDQDETR':  # its dense branch goes on
        idle = ('query_embedding', 'bbox_head.aux_', *(f'bbox_head.cls_branches.{i}.' for i in range(3)))
    assert not any(key.startswith(idle) for key in ours)
    shared = {key for key in parents if key.startswith(('backbone.', 'neck.', 'encoder.', 'level_embed'))}
    assert shared <= ours
    extra = ours - parents
    assert extra and all(key.startswith(('query_selector.', 'decoder.')) for key in extra)


@pytest.mark.parametrize('name', HOSTS)
def test_initialisation_leaves_the_parts_their_own(name: str) -> None:
    """mmdet's init_weights draws every matrix of a decoder anew; a box head that starts at zero must stay there."""
    model = build(name, 'iou-aware', decoder=True)
    was = {k: v.clone() for k, v in model.state_dict().items() if k.startswith(('decoder.', 'query_selector.'))}
    encoder = model.encoder.layers[0].ffn.layers[1].weight.clone()
    model.init_weights()
    state = model.state_dict()
    assert all(torch.equal(state[key], value) for key, value in was.items())
    assert (state['decoder.bbox_heads.0.layers.2.weight'] == 0).all()
    assert not torch.equal(model.encoder.layers[0].ffn.layers[1].weight, encoder)


@pytest.mark.parametrize('name', HOSTS)
def test_denoising_queries_do_not_leak(name: str) -> None:
    """Matching predictions are the same with other ground truth in the denoising queries."""
    model = build(name, denoising=name not in OWN_DENOISING, quality='giou').train()
    model.init_weights()
    for module in model.modules():
        if isinstance(module, nn.Dropout):  # mmcv's deformable attention has some by default
            module.p = 0.0
    images, samples = random_batch([2, 1], *SIZE, num_classes=80)
    other = copy.deepcopy(samples)
    for sample in other:
        sample.gt_instances.bboxes = sample.gt_instances.bboxes.flip(0) * 0.7
        sample.gt_instances.labels = (sample.gt_instances.labels + 5) % 80
    with torch.no_grad():
        feats = model.extract_feat(images)
        results = [model.run_parts(feats, batch, model.targets(batch)) for batch in (samples, other)]
    for ours, theirs in zip(*(result.matching_predictions[:2] for result in results)):
        torch.testing.assert_close(ours, theirs, **within(torch.float32))
    for ours, theirs in zip(*(result.denoising_predictions[:2] for result in results)):
        assert (ours - theirs).abs().max() > 1e-3


@pytest.mark.parametrize('name', HOSTS)
def test_selected_boxes_refer_to_the_image_not_to_the_padding(name: str) -> None:
    """Box heads start at zero, so a selected box is centred on its token: in pixels of the image, padded or not."""
    model = build(name, 'iou-aware').eval()
    model.init_weights()
    height, width, padded_width = 64, 64, 128
    images = torch.zeros(1, 3, height, padded_width)
    images[..., :width], samples = random_batch([1], height, width, num_classes=80)
    samples[0].set_metainfo({'batch_input_shape': (height, padded_width), 'pad_shape': (height, padded_width)})
    with torch.no_grad():
        feats = model.extract_feat(images)
        selection = model.run_parts(feats, samples).selection
    boxes, index = selection.queries.anchors_unact.sigmoid()[0], selection.token_index[0]
    maps = feats if name not in DENSE else feats[-1:]
    centres = []
    for level in maps:
        y, x = torch.meshgrid(*(torch.arange(n) + 0.5 for n in level.shape[-2:]), indexing='ij')
        stride = height / level.shape[-2]
        centres.append(torch.stack([x, y], dim=-1).flatten(0, 1) * stride)
    expected = torch.cat(centres)[index]
    inside = expected[:, 0] < width
    # the image's tokens come first; those that only padding is under come after them
    assert inside[: int(inside.sum())].all() and inside.sum() >= 2
    valid = inside & (boxes < 1).all(-1)
    torch.testing.assert_close(boxes[valid][:, :2] * width, expected[valid], **within('px'))


def test_soft_targets_of_another_overlap() -> None:
    """``quality`` alone changes the class losses of a varifocal head, and nothing else."""
    images, samples = random_batch([2, 3], *SIZE, num_classes=80)
    losses = []
    for quality in ('giou', 'ciou'):
        model = build('DABDETR', loss='varifocal', quality=quality).train()
        losses.append(model.loss(images, samples))
    ours, theirs = losses
    assert ours['loss_cls'] != theirs['loss_cls']
    assert torch.equal(ours['loss_bbox'], theirs['loss_bbox'])


class OwnEmbeddings(LearnedEmbeddings):
    pass


class OwnAssigner:
    """That keeps the package's protocol, and is of no class of its."""

    def __call__(self, predictions: Predictions, targets: Targets) -> Pairs:
        return BatchedHungarianAssigner()(predictions, targets)


def test_an_assigner_of_ones_own_is_called_as_it_is() -> None:
    """Named for a host, it brings the criterion with it, as a part does; the losses are those of its pairs."""
    losses = []
    for assigner in (OwnAssigner, BatchedHungarianAssigner):
        torch.manual_seed(0)
        cfg = host_config('DABDETR', sigmoid=True)
        cfg.type, cfg.train_cfg = 'IoUQueryDABDETR', ConfigDict(assigner={'type': assigner})
        model = MODELS.build(cfg).train()
        assert type(model.criterion.assigner) is assigner
        losses.append(model.loss(*random_batch([2, 3], *SIZE, num_classes=80)))
    assert losses[0] == losses[1]


REFUSALS = {
    'dino has its own denoising': ('DINO', {'denoising': DENOISING}, 'takes no denoising: it has contrastive'),
    'softmax': ('DETR', {'query_selector': SELECTORS['iou-aware']}, 'CrossEntropyLoss with a softmax; name a sigmoid'),
    'one map': ('DETR', {'neck': {'type': 'HybridEncoder', 'in_channels': [2048]}}, 'takes no HybridEncoder as neck'),
    'dab without boxes': ('DABDETR', {'query_selector': SELECTORS['embeddings']}, 'LearnedEmbeddings are no boxes'),
    'dab with embeddings of a user': ('DABDETR', {'query_selector': {'type': OwnEmbeddings}}, 'OwnEmbeddings are no'),
    'dino without boxes': ('DINO', {'query_selector': SELECTORS['embeddings']}, 'LearnedEmbeddings are no boxes'),
    'one stage': (
        'DeformableDETR',
        {'query_selector': SELECTORS['iou-aware'], 'as_two_stage': False},
        r'takes parts \(query_selector\) with as_two_stage=True only',
    ),
}


@pytest.mark.parametrize('case', REFUSALS)
def test_what_makes_no_sense_is_refused_with_the_reason(case: str) -> None:
    name, changes, message = REFUSALS[case]
    cfg = host_config(name)
    cfg.type = HOSTS[name].adapter
    cfg.update(ConfigDict(changes))
    with pytest.raises(ValueError, match=message):
        MODELS.build(cfg)


def test_weights_of_the_parent_load_into_what_is_left_of_it() -> None:
    """Fine-tuning DINO with another selector: all but the selection's own weights are DINO's."""
    cfg = host_config('DINO')
    parent = MODELS.build(copy.deepcopy(cfg))
    model = build('DINO', 'iou-aware')
    missing, unexpected = model.load_state_dict(parent.state_dict(), strict=False)
    assert missing and all(key.startswith('query_selector.') for key in missing)
    gone = ('query_embedding.', 'memory_trans_', 'bbox_head.cls_branches.2.', 'bbox_head.reg_branches.2.')
    assert unexpected and all(key.startswith(gone) for key in unexpected)
