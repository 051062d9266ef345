"""A prepared detector predicts the same, and the detector it was made of stays as it was."""

from __future__ import annotations

import copy
import os
import platform
import subprocess
import sys
import warnings

import pytest
import torch
from helpers import D_FINE_NECK, FAMILY, build_detector, random_batch, small_detector
from hosts import host_config
from mmdet.registry import MODELS
from tolerances import within
from torch import Tensor, nn

from mmdet_iouquery import prepare_for_inference
from mmdet_iouquery.compat import native
from mmdet_iouquery.core import TableCache
from mmdet_iouquery.errors import InputError
from mmdet_iouquery.models.backbones import HGNetv2
from mmdet_iouquery.models.backbones.vit import LayerScale, UnbiasedKeys
from mmdet_iouquery.models.layers import ConvNormAct, LearnableAffine
from mmdet_iouquery.models.necks import HybridEncoder
from mmdet_iouquery.models.necks.fusion import RepVGGBlock


def with_statistics(model: nn.Module) -> nn.Module:
    """Batch norms as after a training: nothing is 0 or 1."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
        elif isinstance(module, LayerScale):
            nn.init.uniform_(module.gamma, 0.5, 1.5)
        elif isinstance(module, UnbiasedKeys):
            nn.init.normal_(module.bias)
    return model.eval()


def refining(model: nn.Module) -> nn.Module:
    """Heads whose last layer starts at zero answer something, so that boxes are not their anchors."""
    for parameter in model.bbox_head.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return model


def raw(model: nn.Module, images: Tensor, token_index: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, boxes and chosen tokens; equal scores may order queries differently, so both sides can be given one."""
    selector = model.bbox_head.query_selector
    chosen = []
    handle = selector.register_forward_hook(lambda _, inputs, selection: chosen.append(selection.token_index))
    with torch.no_grad():
        logits, boxes = model.bbox_head.forward(model.extract_feat(images))
    handle.remove()
    return logits.float(), boxes.float(), chosen[0]


def by_token(prediction: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    logits, boxes, index = prediction
    order = index.argsort(1)
    return (
        logits.gather(1, order.unsqueeze(-1).expand_as(logits)),
        boxes.gather(1, order.unsqueeze(-1).expand_as(boxes)),
        index.gather(1, order),
    )


def vit_like(name: str) -> dict[str, object]:
    """What makes a family's ViT narrow."""
    return {key: value for key, value in FAMILY[name].items() if key != 'config'}


@pytest.mark.parametrize(
    ('config', 'changes'),
    [
        ('rtdetr/rtdetr_r18vd_8xb2-72e_coco.py', {}),
        ('rtdetr/rtdetr_r50vd_8xb2-72e_coco.py', {}),
        ('rtdetr/rtdetr_r18vd_8xb2-72e_coco.py', D_FINE_NECK),
        ('dfine/dfine_hgnetv2-n_8xb16-160e_coco.py', {}),
        ('deim/deim-rtdetrv2_r18vd_8xb2-120e_coco.py', {}),
        ('deimv2/deimv2_hgnetv2-atto_8xb16-500e_coco.py', {}),
        ('deimv2/deimv2_hgnetv2-n_8xb4-160e_coco.py', {'neck__elan_tail': False}),  # as from S on
        ('deimv2/deimv2_vit-x_8xb4-58e_coco.py', vit_like('DEIMv2-X')),
        ('ecdet/ecdet_ecvit-s_8xb4-74e_coco.py', vit_like('ECDet-S')),
    ],
)
def test_logits_and_boxes_are_the_same(config: str, changes: dict[str, object]) -> None:
    """Every token is a query, so that no choice among nearly equal scores can differ."""
    model = with_statistics(
        build_detector(
            config,
            bbox_head__num_classes=5,
            bbox_head__query_selector__num_queries=10**4,
            **changes,
        )
    )
    refining(model)
    images = torch.rand(2, 3, 64, 96)
    before = copy.deepcopy(model.state_dict())
    prepared = prepare_for_inference(model)
    ours, expected = by_token(raw(prepared, images)), by_token(raw(model, images))
    assert torch.equal(ours[2], expected[2])
    for actual, wanted in zip(ours[:2], expected[:2]):
        torch.testing.assert_close(actual, wanted, **within(torch.float32))
    merged = (nn.BatchNorm2d, RepVGGBlock, LayerScale, UnbiasedKeys)
    assert not any(isinstance(module, merged) for module in prepared.modules())
    assert not any(parameter.requires_grad for parameter in prepared.parameters())
    # the model itself is as it was
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert any(parameter.requires_grad for parameter in model.parameters())


def with_affines(model: nn.Module, scales: tuple[float, ...]) -> nn.Module:
    """Learnable affines with these scales in turn, and offsets of either sign."""
    for i, module in enumerate(module for module in model.modules() if isinstance(module, LearnableAffine)):
        nn.init.constant_(module.scale, scales[i % len(scales)])
        nn.init.constant_(module.bias, 0.3 * (-1) ** (i // 2))
    return model


@pytest.mark.parametrize('scales', [(1.25,), (-0.75,), (0.0, 1.0), (1.25, -0.75, 0.0)], ids=str)
def test_affines_go_into_the_convolutions_whatever_their_sign(scales: tuple[float, ...]) -> None:
    model = with_affines(with_statistics(HGNetv2('B2', learnable_affine=True)), scales)
    images, before = torch.rand(2, 3, 75, 109), copy.deepcopy(model.state_dict())
    with torch.no_grad():
        prepared = prepare_for_inference(model)
        for x, expected in zip(prepared(images), model(images)):
            torch.testing.assert_close(x, expected, **within(torch.float32))
    assert not any(isinstance(module, (nn.BatchNorm2d, LearnableAffine)) for module in prepared.modules())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_an_affine_stays_where_it_cannot_go() -> None:
    """Behind a group norm, which is no convolution's, and behind another activation than ReLU."""
    for settings in ({'norm_cfg': {'type': 'GN', 'num_groups': 2}}, {'act_cfg': {'type': 'SiLU'}}):
        block = ConvNormAct(
            3, 8, 3, **{'norm_cfg': {'type': 'BN'}, 'act_cfg': {'type': 'ReLU'}, **settings}, learnable_affine=True
        )
        model, images = with_affines(with_statistics(nn.Sequential(block)), (-0.75,)), torch.rand(1, 3, 16, 16)
        prepared = prepare_for_inference(model)
        assert any(isinstance(module, LearnableAffine) for module in prepared.modules())
        with torch.no_grad():
            torch.testing.assert_close(prepared(images), model(images), **within(torch.float32))


@pytest.mark.parametrize('fusion', ['csp', 'elan'])
def test_norms_that_are_no_batch_norms_stay(fusion: str) -> None:
    cfg = {'norm_cfg': {'type': 'GN', 'num_groups': 2}, 'num_heads': 2, 'feedforward_channels': 16, 'fusion': fusion}
    neck = HybridEncoder((8, 16, 32), 16, **cfg).eval()
    norms = [module for module in neck.modules() if isinstance(module, nn.GroupNorm)]
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, std=0.2)
    maps = [torch.rand(2, channels, side, side + 1) for channels, side in ((8, 13), (16, 7), (32, 4))]
    prepared = prepare_for_inference(neck)
    with torch.no_grad():
        for ours, expected in zip(prepared(maps), neck(maps)):
            # a group of few pixels may have a small deviation, by which it is divided
            torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)
    assert sum(isinstance(module, nn.GroupNorm) for module in prepared.modules()) == len(norms)


@pytest.mark.parametrize('changes', [{}, FAMILY['D-FINE'], FAMILY['DEIMv2-Atto']], ids=['RT-DETR', 'D-FINE', 'Atto'])
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_precision_is_close(dtype: torch.dtype, changes: dict[str, object]) -> None:
    settings = {'bbox_head__query_selector__num_queries': 10**4, 'data_preprocessor__std': [255.0] * 3}
    model = with_statistics(small_detector(**{**changes, **settings}))
    images = torch.rand(1, 3, 64, 64)
    prepared = prepare_for_inference(model, dtype)
    assert {p.dtype for p in prepared.parameters()} == {dtype}
    # pixels are scaled in single precision
    assert prepared.data_preprocessor.std.dtype == torch.float32
    ours, expected = by_token(raw(prepared, images)), by_token(raw(model, images))
    # some forty layers of weights rounded to 8 (bfloat16) or 11 bits; a layer gone wrong is off by more than 1
    bound = {torch.bfloat16: 0.1, torch.float16: 0.02}[dtype]
    assert (ours[0].sigmoid() - expected[0].sigmoid()).abs().max() < bound
    assert (ours[1] - expected[1]).abs().max() < bound


def test_half_precision_without_instructions_for_it_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_detector()
    monkeypatch.setattr(native, 'computes_fast', lambda dtype: dtype == torch.float32)
    with pytest.warns(UserWarning, match=r'bfloat16 will take .* predict in float32, or on a GPU'):
        prepare_for_inference(model, torch.bfloat16)
    monkeypatch.setattr(native, 'computes_fast', lambda _: True)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        prepare_for_inference(model, torch.bfloat16)


def test_whether_this_processor_has_such_instructions() -> None:
    tells = 'import torch\nfrom mmdet_iouquery.compat import computes_fast\n'
    tells += 'print(*(computes_fast(dtype) for dtype in (torch.float32, torch.bfloat16, torch.float16)))'
    # oneDNN then takes an x86 processor for one of AVX2; mmdet is not asked, and not imported
    environment = {**os.environ, 'ONEDNN_MAX_CPU_ISA': 'AVX2', 'MMDET_IOUQUERY_REGISTER': 'later'}
    done = subprocess.run([sys.executable, '-c', tells], env=environment, capture_output=True, text=True, check=True)
    slow = platform.machine() in ('x86_64', 'AMD64') and torch.backends.mkldnn.is_available()
    assert done.stdout.split() == ['True', str(not slow), str(not slow)]


def test_detections_are_the_same_through_mmdets_own_call() -> None:
    model = with_statistics(small_detector())
    images, samples = random_batch([0, 0], 64, 64)
    data = {'inputs': list((images * 255).byte()), 'data_samples': samples}
    with torch.no_grad():
        actual, expected = prepare_for_inference(model).test_step(copy.deepcopy(data)), model.test_step(data)
    for ours, theirs in zip(actual, expected):
        torch.testing.assert_close(ours.pred_instances.scores, theirs.pred_instances.scores, **within(torch.float32))
        assert len(ours.pred_instances) == len(theirs.pred_instances) > 0


def test_mmdets_own_detectors_can_be_prepared() -> None:
    model = MODELS.build(host_config('DINO'))
    model.init_weights()  # mmdet leaves what embeds the levels as the memory was
    with_statistics(model)
    images, samples = random_batch([0], 64, 64, num_classes=80)
    samples[0].set_metainfo({'img_shape': (64, 64)})
    with torch.no_grad():
        ours, expected = (net.predict(images, copy.deepcopy(samples)) for net in (prepare_for_inference(model), model))
    torch.testing.assert_close(
        ours[0].pred_instances.scores, expected[0].pred_instances.scores, **within(torch.float32)
    )
    with pytest.raises(InputError, match=r'half precision .* this DINO has DINOHead; leave dtype out'):
        prepare_for_inference(model, torch.bfloat16)


def test_other_types_are_refused() -> None:
    with pytest.raises(InputError, match=r'dtype must be torch.bfloat16, .* got torch.int8'):
        prepare_for_inference(nn.Linear(1, 1), torch.int8)


def test_tables_are_made_once_a_shape_and_serve_in_training() -> None:
    made = []

    def make() -> Tensor:
        made.append(None)
        return torch.ones(2)

    cache = TableCache(size=2)
    with torch.inference_mode():
        first = cache('a', make)
    assert cache('a', make) is first and len(made) == 1
    weight = torch.ones(2, requires_grad=True)
    (weight * first).sum().backward()  # a tensor of inference mode could not be saved for this
    cache('b', make)
    cache('a', make)
    cache('c', make)  # 'b' goes, used longest ago
    assert len(made) == 3 and cache('a', make) is first and len(made) == 3
    cache('b', make)
    assert len(made) == 4
    assert copy.deepcopy(cache)('a', make) is not first


def test_tables_follow_the_size_of_the_images() -> None:
    """A second size, and the first again, give what a model that has seen nothing else gives."""
    model = with_statistics(small_detector())
    sizes = [(64, 64), (96, 64), (64, 64)]
    images = [torch.rand(1, 3, *size) for size in sizes]
    in_turn = [raw(model, image) for image in images]
    for image, outputs in zip(images, in_turn):
        alone = raw(copy.deepcopy(model), image)
        assert all(torch.equal(actual, expected) for actual, expected in zip(outputs, alone))
