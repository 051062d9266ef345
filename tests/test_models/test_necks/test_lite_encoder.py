"""DEIMv2's lite encoder: its formula, its sizes, and that detectors of two maps take it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from helpers import random_batch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.hub import get_config
from test_dfine_neck import conv, elan, evaluated
from tolerances import within
from torch import Tensor, nn

from mmdet_iouquery.deploy import prepare_for_inference
from mmdet_iouquery.errors import InputError

SIZES = {'atto': (256, 64), 'femto': (512, 96), 'pico': (512, 112)}


def build(**settings: object) -> nn.Module:
    cfg = {'type': 'LiteEncoder', 'in_channels': [12], 'out_channels': 8, 'expansion': 0.9, 'num_fusion_blocks': 2}
    return evaluated({**cfg, **settings})


@pytest.mark.parametrize('size', [(8, 12), (7, 5), (1, 1)], ids=str)
def test_is_what_its_formula_says(size: tuple[int, int]) -> None:
    model, x = build(), torch.randn(2, 12, *size, dtype=torch.float64)
    weights = model.state_dict()

    def halved(x: Tensor, name: str) -> Tensor:
        """Sums of 3 x 3 pixels over nine, those beyond the border as 0."""
        ones = torch.ones(8, 1, 3, 3, dtype=torch.float64)
        return F.silu(conv(F.conv2d(x, ones, stride=2, padding=1, groups=8) / 9, weights, f'{name}.1'))

    projected = conv(x, weights, 'input_proj.0')
    coarse = halved(projected, 'coarser')
    coarse = F.silu(conv(coarse + coarse.sum((2, 3), keepdim=True) / coarse[0, 0].numel(), weights, 'context.conv'))
    fine = elan(projected + F.interpolate(coarse, size=size, mode='nearest'), weights, 'fpn_block', 2)
    expected = fine, elan(coarse + halved(fine, 'downsample'), weights, 'pan_block', 2)
    outputs = model([x])
    assert len(outputs) == 2 and outputs[1].shape[2:] == tuple(-(-side // 2) for side in size)
    for actual, by_formula in zip(outputs, expected):
        torch.testing.assert_close(actual, by_formula, **within(torch.float64))
    for actual, by_formula in zip(prepare_for_inference(model)([x]), expected):
        torch.testing.assert_close(actual, by_formula, **within(torch.float64))


def test_every_parameter_is_trained_and_images_do_not_mix() -> None:
    model, x = build(), torch.randn(2, 12, 6, 4, dtype=torch.float64)
    for batched, alone in zip(model([x]), model([x[1:]])):
        torch.testing.assert_close(batched[1:], alone, **within(torch.float64))
    sum(map_.square().sum() for map_ in model([x])).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_a_detector_of_two_maps_takes_it() -> None:
    """mmdet's RetinaNet on the last map of a ResNet: it learns from the loss and predicts."""
    config = Config(get_config('mmdet::retinanet/retinanet_r18_fpn_1x_coco.py').to_dict()).model
    config.backbone.update(init_cfg=None, out_indices=(3,))
    config.neck = {'type': 'LiteEncoder', 'in_channels': [512], 'out_channels': 32, 'num_fusion_blocks': 1}
    config.bbox_head.update(in_channels=32, feat_channels=32, stacked_convs=1, num_classes=5)
    config.bbox_head.anchor_generator.strides = [32, 64]
    config.test_cfg.nms = None
    model = MODELS.build(config).train()
    images, samples = random_batch([2, 1], 64, 96)
    losses = model.loss(images, samples)
    total = sum(sum(value) for value in losses.values())
    total.backward()
    assert total.isfinite() and all(p.grad is not None and p.grad.isfinite().all() for p in model.neck.parameters())


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'in_channels': [12, 24]}, r'makes two maps of one, and in_channels=\[12, 24\] are those of 2; give'),
        ({'in_channels': 12}, r'in_channels must be a list of whole numbers, got 12'),
        ({'expansion': 0.1}, r'expansion must be a number of at least 0.25, got 0.1'),
        ({'num_fusion_blocks': 0}, r'num_fusion_blocks must be at least 1'),
        ({'act_cfg': 'SiLU'}, r"act_cfg must be a dict, such as dict\(name=value\), or None, got 'SiLU'"),
    ],
)
def test_wrong_arguments(settings: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(**settings)


def test_wrong_channels_name_both_sides() -> None:
    with pytest.raises(ValueError, match=r'one map of 12 channels and was given maps of \(12, 12\) channels'):
        build()([torch.zeros(1, 12, 4, 4).double()] * 2)
