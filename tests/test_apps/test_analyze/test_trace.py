"""What is written down of an image's queries is what the model computed, in px of the image on the disk."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from helpers import D_FINE_NECK, FAMILY, RTDETRV2, small_detector
from hosts import HOSTS, host_config
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from tolerances import within
from torch import nn

from mmdet_iouquery.apps.analyze.edges import OUTWARDS
from mmdet_iouquery.apps.analyze.trace import Objects, QueryTrace, as_if_training, parts_of, trace
from mmdet_iouquery.errors import InputError

INPUT, SCALE = (90, 120), (0.5, 0.75)  # height and width in the network; its px for one of the disk, x and y
OBJECTS = Objects(np.array([[20.0, 12.0, 100.0, 60.0], [130.0, 40.0, 220.0, 110.0]]), np.array([1, 3]))
VARIANTS: dict[str, dict[str, Any]] = {
    'RT-DETR': {},
    'RT-DETR dense': {'bbox_head__decoder': {'type': 'DABDecoder', 'num_layers': 3}},
    'RT-DETRv2': {
        'bbox_head__decoder__num_points': [3, 5, 2],
        'bbox_head__decoder__sampling': 'discrete',
        'bbox_head__query_selector__class_agnostic': True,
    },
    'RT-DETR refined': {
        **D_FINE_NECK,
        'backbone__out_indices': (1, 2),
        'neck__in_channels': [128, 256],
        'bbox_head__in_channels': [256, 256],
        'bbox_head__project': 'unequal',
        'bbox_head__decoder': {'_delete_': True, 'type': 'DistributionDecoder', 'num_layers': 3, 'num_points': [6, 6]},
    },
    **{name: FAMILY[name] for name in ('DEIMv2-Atto', 'DEIMv2-X', 'ECDet-S')},
}
"""With an ``RTDETRHead``; all others are mmdet's."""
REFINED = ['RT-DETR refined', 'DINO refined', 'DEIMv2-Atto', 'DEIMv2-X', 'ECDet-S']
"""With a decoder of distributions."""
TRACED = [
    *(*VARIANTS, 'DINO refined'),
    *('DETR', 'ConditionalDETR', 'DABDETR', 'DeformableDETR', 'DINO'),
]


def element() -> dict[str, Any]:
    height, width = INPUT
    sample = DetDataSample(
        metainfo={
            'img_id': 7,
            'img_path': 'images/7.jpg',
            'img_shape': INPUT,
            'ori_shape': (round(height / SCALE[1]), round(width / SCALE[0])),
            'scale_factor': SCALE,
        }
    )
    image = torch.randint(0, 255, (3, *INPUT), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    return {'inputs': image, 'data_samples': sample}


def detector_of(name: str) -> nn.Module:
    torch.manual_seed(0)
    if name in VARIANTS:
        model = small_detector(**VARIANTS[name])
    else:
        host = name.split()[0]
        cfg = host_config(host)
        cfg.type = HOSTS[host].adapter
        if name in REFINED:
            cfg.decoder = ConfigDict(type='DistributionDecoder', num_layers=2, num_points=[3, 4, 2, 1])
        model = MODELS.build(cfg)
    model.init_weights()
    for module_name, module in model.named_modules():  # boxes that move from layer to layer
        if isinstance(module, nn.Linear) and module.out_features in (4, 4 * 33):
            torch.manual_seed(len(module_name))
            nn.init.normal_(module.weight, std=0.2)
    return model.eval()


@pytest.fixture(scope='module', params=TRACED)
def traced(request: pytest.FixtureRequest) -> tuple[str, nn.Module, QueryTrace]:
    model = detector_of(request.param)
    return request.param, model, trace(model, element(), OBJECTS)


def test_the_last_layer_is_what_the_model_predicts(traced: tuple[str, nn.Module, QueryTrace]) -> None:
    """Boxes and scores of the last layer, ranked and cut at the image, are the detections."""
    _, model, record = traced
    data = element()
    with torch.no_grad():
        batch = model.data_preprocessor({'inputs': [data['inputs']], 'data_samples': [data['data_samples']]}, False)
        (predicted,) = model.predict(batch['inputs'], batch['data_samples'])
    detections = predicted.pred_instances
    best = record.layers[-1].class_scores.max()
    assert abs(float(detections.scores[0]) - best) < 1e-5
    query = int(record.layers[-1].scores.argmax())
    limit = np.tile(record.size_px, 2)
    expected = record.layers[-1].boxes_px[query].clip(0, limit)
    assert np.abs(detections.bboxes[0].numpy() - expected).max() < 0.05
    assert int(detections.labels[0]) == record.layers[-1].labels[query]


def test_scores_are_probabilities_and_all_layers_are_told_of(traced: tuple[str, nn.Module, QueryTrace]) -> None:
    name, model, record = traced
    layers = len(model.bbox_head.decoder.layers) if name in VARIANTS else 2
    assert len(record.layers) == layers == len(record.attention)
    first, last = record.layers[0], record.layers[-1]
    assert not np.allclose(first.boxes_px, last.boxes_px, atol=0.1)  # px: far more than rounding
    for layer in record.layers:
        assert layer.class_scores.min() >= 0 and layer.class_scores.max() <= 1
        assert layer.boxes_px.shape == (30 if name in VARIANTS else 20, 4)
    assert record.size_px == (240, 120) and record.image_id == 7 and record.path == 'images/7.jpg'
    assert not any(module.training for module in model.modules())


def test_tokens_stand_where_their_boxes_are_centred(traced: tuple[str, nn.Module, QueryTrace]) -> None:
    """A box head that says nothing leaves the encoder's boxes centred on their tokens."""
    name, model, record = traced
    if name in ('DETR', 'ConditionalDETR', 'DABDETR'):
        assert record.tokens is None and record.encoder is None
        assert (record.anchors_px is None) == (name != 'DABDETR')
        return
    model = copy.deepcopy(model)
    head = model.bbox_head
    last = (head.query_selector.bbox_head if name in VARIANTS else head.reg_branches[-1]).modules()
    layer = [module for module in last if isinstance(module, nn.Linear)][-1]
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    record = trace(model, element(), OBJECTS)
    assert record.tokens is not None and record.encoder is not None and record.anchors_px is not None
    centres = 0.5 * (record.encoder.boxes_px[:, :2] + record.encoder.boxes_px[:, 2:])
    inside = (record.tokens.centres_px < np.array(record.size_px) * 0.98).all(1)
    assert inside.sum() >= 5
    assert np.abs(centres - record.tokens.centres_px)[inside].max() < 0.05
    assert np.abs(record.encoder.boxes_px - record.anchors_px)[inside].max() < 0.05
    cells = np.array([h * w for h, w in record.spatial_shapes])
    assert (record.tokens.number < cells.sum()).all()
    assert (np.cumsum(cells)[record.tokens.level] > record.tokens.number).all()
    # of two levels random scores may all prefer one
    assert len(np.unique(record.tokens.level)) > 1 or len(cells) == 2


def test_denoising_queries_before_and_after(traced: tuple[str, nn.Module, QueryTrace]) -> None:
    name, model, record = traced
    if name not in VARIANTS and not name.startswith('DINO'):
        assert record.noise is None
        return
    assert record.noise is not None
    assert record.noise.truth.tolist() == [0, 1, 0, 1] and record.noise.positive.tolist() == [True, True, False, False]
    sides = np.concatenate([OBJECTS.boxes_px[:, 2:] - OBJECTS.boxes_px[:, :2]] * 2, axis=1)
    moved = np.abs(record.noise.before_px - OBJECTS.boxes_px[record.noise.truth]) / (0.5 * sides[record.noise.truth])
    assert moved[:2].max() <= 1 + 1e-3 and moved.min() > 0
    assert (moved[2:].max(1) > 1).all()  # all corners were; some were brought back to the edge, or across each other
    again, other = (trace(model, element(), OBJECTS, seed=seed).noise for seed in (0, 1))
    assert np.array_equal(again.before_px, record.noise.before_px)
    assert not np.array_equal(other.before_px, record.noise.before_px)
    assert trace(model, element()).noise is None


def test_where_queries_look(traced: tuple[str, nn.Module, QueryTrace]) -> None:
    name, _, record = traced
    dense = name in ('RT-DETR dense', 'DETR', 'ConditionalDETR', 'DABDETR')
    some = np.array([4, 0])
    for layer in record.attention:
        assert layer.dense == dense
        if dense:
            for content in (True, False):
                maps = layer.maps(some, content=content)
                assert [level.shape[1:] for level in maps] == [*record.spatial_shapes]
                assert np.allclose(sum(level.sum((1, 2)) for level in maps), 1, **within(torch.float32))
        else:
            places, weights, levels = layer.points(some)
            assert places.shape == (2, len(levels), 2) and np.allclose(weights.sum(1), 1, **within(torch.float32))
            assert set(levels) == set(range(len(record.spatial_shapes)))


def test_points_are_told_by_their_own_level() -> None:
    """3, 5 and 2 a head, of which the p-th of n starts p / n of the way to the edge of the box."""
    model = small_detector(**RTDETRV2['points per level']).eval()
    record = trace(model, element(), OBJECTS)
    places, weights, levels = record.attention[0].points(np.array([3]))
    assert np.bincount(levels).tolist() == [8 * 3, 8 * 5, 8 * 2]
    assert np.allclose(weights, 1 / 80)
    x1, y1, x2, y2 = record.anchors_px[3]
    share = np.abs((places[0] - [(x1 + x2) / 2, (y1 + y2) / 2]) / [(x2 - x1) / 2, (y2 - y1) / 2]).max(1)
    for level, number in enumerate((3, 5, 2)):
        expected = np.tile(np.arange(1, number + 1) / number, 8)
        assert np.allclose(share[levels == level], expected, **within(torch.float32))


def test_points_lie_around_the_boxes_that_they_refine() -> None:
    """Untrained offsets are a ring: their mean is the anchor's centre, their reach half its size."""
    model = detector_of('RT-DETR')
    record = trace(model, element(), OBJECTS)
    some = np.arange(5)
    for layer, boxes in zip(record.attention, [record.anchors_px, *(layer.boxes_px for layer in record.layers)]):
        places, _, _ = layer.points(some)
        centre, half = 0.5 * (boxes[some, :2] + boxes[some, 2:]), 0.5 * (boxes[some, 2:] - boxes[some, :2])
        assert np.allclose(places.mean(1), centre, **within('px'))
        assert np.allclose(np.abs(places - centre[:, None]).max(1), half, **within('px'))


def test_only_the_modules_named_are_as_if_training() -> None:
    model = detector_of('RT-DETR')
    head = model.bbox_head
    with as_if_training(head, head.decoder):
        assert head.training and head.decoder.training
        assert not head.decoder.layers[0].training and not model.backbone.training
    assert not head.training and not head.decoder.training


@pytest.mark.parametrize(
    ('name', 'changes', 'message'),
    [
        ('DeformableDETR', {'as_two_stage': False}, 'queries are points, not boxes'),
        ('DDQDETR', {}, 'chosen again in each layer'),
    ],
)
def test_queries_that_cant_be_followed_are_refused(name: str, changes: dict[str, Any], message: str) -> None:
    cfg = host_config(name, **changes)
    cfg.type = HOSTS[name].adapter
    with pytest.raises(InputError, match=message):
        parts_of(MODELS.build(cfg))


def test_a_model_without_queries_is_refused_in_a_sentence() -> None:
    with pytest.raises(InputError, match=r'Linear has no queries to look at: name a detector with an RTDETRHead'):
        parts_of(nn.Linear(1, 1))
    data = element()
    data['data_samples'].set_metainfo({'flip': True})
    with pytest.raises(InputError, match='mirrors images'):
        trace(detector_of('RT-DETR'), data, OBJECTS)


def test_edges_are_those_of_the_boxes(traced: tuple[str, nn.Module, QueryTrace]) -> None:
    """The initial box with its edges moved outwards by each layer's means is that layer's box, in px of the disk."""
    name, _, record = traced
    if name not in REFINED:
        assert record.edges is None
        return
    edges = record.edges
    assert edges is not None and np.allclose(edges.probabilities.sum(-1), 1)
    assert edges.probabilities.shape[2:] == edges.distances_px.shape[1:] == (4, 33)
    for layer, means in zip(record.layers, edges.means_px):
        assert np.allclose(edges.initial_px + OUTWARDS * means, layer.boxes_px, **within('px'))
    sides = edges.initial_px[:, 2:] - edges.initial_px[:, :2]
    # W ends at +-2 up times the scale, in units of a side over the scale: at the side itself
    assert np.allclose(edges.distances_px[..., -1], np.tile(sides, 2)) and not edges.distances_px[..., 16].any()
    assert np.allclose(edges.distances_px[:, :, ::-1], -edges.distances_px)
    # of narrow heads by less than a px
    assert edges.means_px.std() > 0.1 and not np.allclose(edges.means_px[0], edges.means_px[-1], atol=0.1)
