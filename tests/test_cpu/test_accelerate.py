"""A detector accelerated for training on a CPU computes what it did, and is made as it was again."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import D_FINE_NECK, FAMILY, random_batch, small_detector
from mmengine.hooks import Hook
from mmengine.runner import Runner
from runs import small_run
from torch import Tensor, nn

from mmdet_iouquery import accelerate_training, restore
from mmdet_iouquery.apps.quickstart.digits import build_digits
from mmdet_iouquery.cpu import training
from mmdet_iouquery.cpu.convolution import WinogradConv2d
from mmdet_iouquery.cpu.products import LeanSwiGLU, ProductConv2d, ProductUnbiasedKeys
from mmdet_iouquery.engine.hooks import AccelerateTrainingHook
from mmdet_iouquery.models.necks.fusion import RepVGGBlock

SIZE = (64, 96)
D_FINE = {'config': 'dfine/dfine_hgnetv2-n_8xb16-160e_coco.py'}
DENSE = {'bbox_head__decoder': {'_delete_': True, 'type': 'DABDecoder', 'num_layers': 2}}


def classes(model: nn.Module) -> dict[str, type[nn.Module]]:
    return {name: type(module) for name, module in model.named_modules()}


def losses_and_gradients(model: nn.Module, half: bool = False) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    torch.manual_seed(1)
    images, samples = random_batch([3, 1], *SIZE)
    model.zero_grad(set_to_none=True)
    torch.manual_seed(2)  # of the denoising queries
    with torch.autocast('cpu', dtype=torch.bfloat16, enabled=half):
        losses = model.loss(images.to(next(model.parameters()).dtype), samples)
    sum(losses.values()).backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {name: loss.detach() for name, loss in losses.items()}, gradients


def test_every_kind_of_module_is_replaced_where_there_is_a_faster_one() -> None:
    replaced = set()
    for model in (
        small_detector(**FAMILY['DEIMv2-X']),
        small_detector(neck__expansion=0.5, **D_FINE_NECK),
        small_detector(neck__expansion=0.5),
    ):
        before = classes(model)
        accelerate_training(model)
        after = classes(model)
        replaced |= {before[name] for name in before if before[name] is not after[name]}
        for name, kind in after.items():
            assert kind is before[name] or kind.__base__ is before[name]
            assert kind is before[name] or kind.__module__.startswith('mmdet_iouquery')
    assert replaced == {nn.Conv2d, *training._FASTER}
    # of convolutions wide 3x3 ones of stride 1, and those of single pixels
    assert after['backbone.layer1.0.conv1'] is WinogradConv2d and after['backbone.layer2.0.conv1'] is nn.Conv2d
    assert after['bbox_head.input_proj.0.conv'] is ProductConv2d
    assert after['backbone.stem.3'] is nn.Conv2d


def test_weights_names_and_optimizer_stay() -> None:
    model = small_detector()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before, parameters = model.state_dict(), dict(model.named_parameters())
    accelerate_training(model)
    for _ in range(2):  # accelerated, then restored
        after = model.state_dict()
        assert list(after) == list(before) and all(torch.equal(after[key], before[key]) for key in before)
        assert all(parameters[name] is p for name, p in model.named_parameters())
        restore(model)
    accelerate_training(model)
    weight = model.backbone.layer1[0].conv1.weight
    start = weight.detach().clone()
    losses_and_gradients(model)
    optimizer.step()
    assert not torch.equal(weight, start)


def test_restored_it_is_what_it_was() -> None:
    model = small_detector()
    before = classes(model)
    accelerate_training(model)
    once = classes(model)
    accelerate_training(model)
    assert classes(model) == once != before
    restore(model)
    assert classes(model) == before
    restore(model)
    assert classes(model) == before


def test_subclasses_are_left_alone() -> None:
    class OwnConv2d(nn.Conv2d):
        pass

    class OwnBlock(RepVGGBlock):
        pass

    model = nn.Sequential(
        OwnConv2d(64, 64, 3, padding=1), OwnBlock(64, {'type': 'BN'}, {'type': 'SiLU'}), nn.Conv2d(64, 64, 3, padding=1)
    )
    before = classes(model)
    accelerate_training(model)
    assert [type(module) for module in model] == [OwnConv2d, OwnBlock, WinogradConv2d]
    restore(model)
    assert classes(model) == before


@pytest.mark.usefixtures('filtered_small_maps')
@pytest.mark.parametrize(
    'changes',
    [{}, {'neck__expansion': 1.0}, D_FINE_NECK, D_FINE, DENSE, FAMILY['DEIMv2-Atto']],
    ids=['R18', 'wide fusions', 'D-FINE neck', 'D-FINE-N', 'dense', 'DEIMv2-Atto'],
)
def test_losses_gradients_and_statistics_are_the_same(changes: dict[str, Any]) -> None:
    """In double precision to nine digits, which hides no mistake; boxes and anchors are made in single."""
    plain = small_detector(**changes)
    plain.init_weights()
    plain.double().train()
    model = copy.deepcopy(plain)
    accelerate_training(model)
    nine_digits = {'rtol': 1e-9, 'atol': 1e-9}  # see above
    expected, ours = losses_and_gradients(plain), losses_and_gradients(model)
    assert list(ours[0]) == list(expected[0]) and list(ours[1]) == list(expected[1])
    torch.testing.assert_close(ours[0], expected[0], **nine_digits)
    for name, gradient in expected[1].items():
        bound = 1e-5 * gradient.abs().max().item() + 1e-9
        torch.testing.assert_close(ours[1][name], gradient, rtol=0, atol=bound, msg=lambda text, n=name: f'{n}: {text}')
    torch.testing.assert_close(dict(model.named_buffers()), dict(plain.named_buffers()), **nine_digits)


@pytest.mark.usefixtures('filtered_small_maps')
@pytest.mark.parametrize('half', [False, True], ids=['single', 'bfloat16 autocast'])
def test_losses_are_close_in_the_precisions_of_training(half: bool) -> None:
    plain = small_detector()
    plain.init_weights()
    model = copy.deepcopy(plain.train())
    accelerate_training(model)
    (expected, _), (ours, gradients) = losses_and_gradients(plain, half), losses_and_gradients(model, half)
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    # another choice or matching of near-equal queries may change a few terms of the sum
    assert abs(sum(ours.values()) / sum(expected.values()) - 1) < (0.1 if half else 1e-2)


@pytest.mark.usefixtures('filtered_small_maps')
def test_prediction_and_frozen_norms_are_untouched() -> None:
    """In evaluation mode bit for bit."""
    plain = small_detector().eval()
    model = copy.deepcopy(plain)
    accelerate_training(model)
    images, _ = random_batch([1, 1], *SIZE)
    for actual, expected in zip(model.extract_feat(images), plain.extract_feat(images)):
        assert torch.equal(actual, expected)


def test_copied_and_pickled_it_is_accelerated_still() -> None:
    model = small_detector().train()
    before = classes(model)
    accelerate_training(model)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert classes(other) == classes(model)
        restore(other)
        assert classes(other) == before != classes(model)


@pytest.mark.parametrize('changes', [{}, D_FINE_NECK, D_FINE], ids=['R18', 'D-FINE neck', 'D-FINE-N'])
def test_gradients_lie_as_the_maps_do(changes: dict[str, Any]) -> None:
    """Batch norms are given gradients that are channels last, as their inputs are, wherever maps are joined."""
    model = small_detector(**changes).train()
    accelerate_training(model)
    lie_so: list[bool] = []

    def look(grads: Sequence[Tensor]) -> None:
        lie_so.append(grads[0].is_contiguous(memory_format=torch.channels_last))

    def watch(_: nn.Module, __: object, y: Tensor) -> None:
        y.grad_fn.register_prehook(look)  # behind hooks of the map itself

    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(watch)
    images, samples = random_batch([2, 1], *SIZE)
    sum(model.loss(images, samples).values()).backward()
    assert len(lie_so) > 10 and all(lie_so)


class Wrapped(nn.Module):
    """As ``DistributedDataParallel`` holds a model."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


@pytest.mark.parametrize('device', ['cpu', 'meta'])
@pytest.mark.parametrize('wrap', [lambda model: model, Wrapped])
def test_the_hook_acts_where_the_model_is_on_a_cpu(device: str, wrap: Any) -> None:
    conv = nn.Conv2d(64, 64, 3, padding=1, device=device)
    runner = object.__new__(Runner)
    runner.model = wrap(nn.Sequential(conv))
    hook = AccelerateTrainingHook()
    hook.before_train(runner)
    assert type(conv) is (WinogradConv2d if device == 'cpu' else nn.Conv2d)
    hook.after_train(runner)
    assert type(conv) is nn.Conv2d


class Look(Hook):
    """Which classes there are after a step, of the model and of its moving average."""

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        self.of_model = set(classes(runner.model).values())
        [ema] = [hook.ema_model for hook in runner.hooks if hasattr(hook, 'ema_model')]
        self.of_average = set(classes(ema).values())


def test_a_training_is_accelerated_and_leaves_a_plain_model_and_checkpoint(tmp_path: Path) -> None:
    """The quickstart's own hooks, with a moving average of the weights."""
    digits = build_digits(tmp_path / 'digits', num_train=4, num_val=2, image_size=96, progress=False)
    ema = dict(type='EMAHook', momentum=0.1, priority=49)
    options = {'train_cfg.max_iters': 2, 'default_hooks.checkpoint.interval': 2, 'custom_hooks': [ema]}
    runner = small_run(digits, tmp_path / 'run', options)
    look, before = Look(), classes(runner.model)
    runner.register_hook(look)
    runner.train()
    of_others = {LeanSwiGLU, ProductUnbiasedKeys}  # which RT-DETR has none of
    faster = {WinogradConv2d, ProductConv2d, *training._FASTER.values()} - of_others
    assert faster <= look.of_model and not faster & look.of_average
    assert classes(runner.model) == before
    saved = torch.load(tmp_path / 'run' / 'iter_2.pth', weights_only=True)['state_dict']
    assert list(saved) == list(small_detector().state_dict())
