"""From pixels to boxes in one module: what mmdet's own pipeline of preprocessor, detector and head computes."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from exports import DETECTORS, SIZE, detector, distance, predicted
from hosts import HOSTS, host_config, nms_in_torch
from mmdet.registry import MODELS
from tolerances import within
from torch import nn

from mmdet_iouquery.deploy.graph import Deployed, MapAttention, example
from mmdet_iouquery.errors import InputError
from mmdet_iouquery.models.layers import DeformableAttention, as_tokens
from mmdet_iouquery.structures import Memory

SIZES = torch.tensor([[120.0, 50.0], [96.0, 64.0]])


def detections(deployed: Deployed, *inputs: torch.Tensor) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        return deployed(*inputs)._asdict()


PREPROCESSORS: dict[str, dict[str, Any]] = {
    'divided by 255': {},
    "ImageNet's statistics": {'mean': [123.675, 116.28, 103.53], 'std': [58.395, 57.12, 57.375]},
    'BGR': {'mean': [103.53, 116.28, 123.675], 'std': [1.0, 1.0, 1.0], 'bgr_to_rgb': False},
    'nothing': {'mean': None, 'std': None},
}


@pytest.mark.parametrize('settings', PREPROCESSORS.values(), ids=PREPROCESSORS)
def test_detections_are_those_of_mmdets_pipeline(settings: dict[str, Any]) -> None:
    model = detector(**{f'data_preprocessor__{key}': value for key, value in settings.items()})
    images, _ = example(2, SIZE, 'float32-nchw', raw=False)
    actual = detections(Deployed(model), images, SIZES)
    assert distance(actual, predicted(model, images, SIZES), SIZES) < 1e-5
    assert (actual['scores'].diff(dim=1) <= 0).all()
    assert actual['boxes'].min() >= 0 and (actual['boxes'].amax((1,)) <= SIZES.repeat(1, 2) + 1e-4).all()


def test_statistics_are_told_in_the_order_of_red_green_and_blue() -> None:
    settings = PREPROCESSORS['BGR']
    deployed = Deployed(detector(**{f'data_preprocessor__{key}': value for key, value in settings.items()}))
    mean, std = deployed.normalise.statistics
    assert mean == pytest.approx([123.675, 116.28, 103.53]) and std == [1.0, 1.0, 1.0]
    assert all(isinstance(value, float) for value in [*mean, *std])


def test_bytes_of_a_decoder_give_the_same() -> None:
    model = detector()
    images, _ = example(2, SIZE, 'uint8-nhwc', raw=False)
    assert images.dtype == torch.uint8 and images.shape == (2, *SIZE, 3)
    of_bytes = detections(Deployed(model, input='uint8-nhwc'), images, SIZES)
    of_numbers = detections(Deployed(model), images.permute(0, 3, 1, 2).float(), SIZES)
    for name, value in of_bytes.items():
        torch.testing.assert_close(value, of_numbers[name], rtol=0, atol=1e-4)  # boxes are in px


def test_the_detector_stays_as_it_is() -> None:
    model = detector().train()
    before = copy.deepcopy(model.state_dict())
    deployed = Deployed(model).train()
    assert model.training and not any(module.training for module in deployed.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize('softmax', [False, True])
def test_an_adapters_detections_are_its_own(softmax: bool) -> None:
    cfg = host_config('DETR', sigmoid=not softmax, type='IoUQueryDETR')
    model = MODELS.build(cfg).eval()
    images, _ = example(2, SIZE, 'float32-nchw', raw=False)
    actual = detections(Deployed(model), images, SIZES)
    assert distance(actual, predicted(model, images, SIZES), SIZES) < 1e-5


def refusal(model: nn.Module, **settings: Any) -> str:
    with pytest.raises(InputError) as caught:
        Deployed(model, **settings)
    return str(caught.value)


def test_what_cannot_be_exported_is_refused_by_name() -> None:
    with nms_in_torch():
        ddq = MODELS.build(host_config('DDQDETR', type='IoUQueryDDQDETR'))
    assert refusal(ddq).startswith('IoUQueryDDQDETR cannot be exported: the NMS among its queries')
    dab = MODELS.build(host_config('DABDETR', type='IoUQueryDABDETR'))
    assert refusal(dab).startswith("IoUQueryDABDETR cannot be exported with mmdet's decoder, which writes into parts")
    dino = MODELS.build(host_config('DINO'))
    assert refusal(dino).endswith('an adapter of this package, which takes the same weights: IoUQueryDINO')
    assert 'Linear with NoneType cannot be exported' in refusal(nn.Linear(1, 1))
    adapter = MODELS.build(host_config('DINO', type=HOSTS['DINO'].adapter))
    assert "reads by mmcv's deformable attention" in refusal(adapter, attention='gather')
    softmax = MODELS.build(host_config('DETR', type='IoUQueryDETR'))
    assert 'IoUQueryDETR has a softmax' in refusal(softmax, raw=True)


def test_every_kind_of_detector_is_tried() -> None:
    assert {'RT-DETR', 'D-FINE', 'DEIM-D-FINE', 'DEIMv2-Atto', 'RT-DETRv2, discrete sampling'} <= set(DETECTORS)


@pytest.mark.parametrize('sampling', ['bilinear', 'discrete'])
@pytest.mark.parametrize('projected', [True, False])
def test_attention_over_maps_reads_what_attention_over_tokens_reads(sampling: Any, projected: bool) -> None:
    torch.manual_seed(0)
    attention = DeformableAttention(16, 4, 2, (3, 2), sampling=sampling, value_proj=projected).double()
    nn.init.normal_(attention.sampling_offsets.weight)
    nn.init.normal_(attention.attention_weights.weight)
    maps = tuple(torch.randn(2, 16, *shape, dtype=torch.float64) for shape in ((6, 8), (3, 4)))
    memory = Memory(torch.cat([as_tokens(level) for level in maps], dim=1), ((6, 8), (3, 4)))
    query, boxes = torch.randn(2, 5, 16, dtype=torch.float64), torch.rand(2, 5, 4, dtype=torch.float64)
    expected = attention(query, boxes, memory)
    attention.__class__ = MapAttention
    # tokens that hold nothing show that the maps are read
    of_maps = attention(query, boxes, memory._replace(tokens=torch.full_like(memory.tokens, torch.nan), maps=maps))
    torch.testing.assert_close(of_maps, expected, **within(torch.float64))
    torch.testing.assert_close(attention(query, boxes, memory), expected, **within(torch.float64))
