"""Distillation: what the teacher is given, who holds it, what is compared, and what is refused."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import (
    DISTILLED,
    NARROW,
    RTDETR,
    TINY_TEACHER,
    build_detector,
    random_batch,
    sample,
    shipped_config,
    small_detector,
)
from mmdet.models.layers import ExpMomentumEMA
from mmdet.registry import MODELS
from tolerances import about, within
from torch import Tensor, nn

from mmdet_iouquery.checkpoints import convert, convert_back
from mmdet_iouquery.checkpoints.detector import check_fit
from mmdet_iouquery.deploy.graph import Deployed
from mmdet_iouquery.errors import InputError
from mmdet_iouquery.models.data_preprocessors import DistillingDataPreprocessor, TeacherFeatures
from mmdet_iouquery.models.data_preprocessors.teacher_features import Normalisation

KEYS = {'data_preprocessor.projector.weight', 'data_preprocessor.projector.bias'}


@pytest.fixture(scope='module')
def model() -> Any:
    torch.manual_seed(0)
    return small_detector(**NARROW, **DISTILLED).train()


@pytest.fixture(scope='module')
def plain() -> Any:
    return small_detector(**NARROW)


def losses(model: nn.Module, counts: list[int], size: tuple[int, int] = (96, 64)) -> dict[str, Tensor]:
    torch.manual_seed(1)
    images, samples = random_batch(counts, *size)
    return model(inputs=images, data_samples=samples, mode='loss')


def test_one_more_loss_whatever_the_batch(model: Any, plain: Any) -> None:
    """Rectangles, an image without boxes, a batch without; all the others as they are without a teacher."""
    model.load_state_dict(plain.state_dict(), strict=False)
    for counts in ([2, 0], [0, 0], [3, 1]):
        distilled, others = losses(model, counts), losses(plain.train(), counts)
        assert {**distilled} == {**others, 'loss_distill': distilled['loss_distill']}
        assert 0 < distilled['loss_distill'].item() < 10
    distilled['loss_distill'].backward()
    with_gradients = {name.split('.')[0] for name, p in model.named_parameters() if p.grad is not None}
    assert with_gradients == {'backbone', 'neck', 'data_preprocessor'}
    assert model.neck.fpn_blocks[0].conv1.conv.weight.grad is None, 'it is the map before fusion'
    model.zero_grad(set_to_none=True)


def test_it_is_the_loss_of_the_two_maps(model: Any) -> None:
    """Computed from its pieces; linear in the weight; the same when mmdet hands over its arguments by place."""
    torch.manual_seed(1)
    images, samples = random_batch([1, 2], 64, 96)
    part, seen = model.data_preprocessor, []
    handle = model.neck.encoder[0].register_forward_hook(lambda _, __, out: seen.append(out))
    loss = model(images, samples, mode='loss')['loss_distill']
    handle.remove()
    teacher = part.teacher(images, part.normalisation)
    vectors = seen[0].permute(0, 2, 3, 1) @ part.projector.weight.T + part.projector.bias
    cosine = nn.functional.cosine_similarity(vectors, teacher.permute(0, 2, 3, 1), dim=-1)
    assert teacher.shape == (2, 64, 2, 3) and not teacher.requires_grad
    assert loss.item() == about(5 * (1 - cosine).mean().item(), 'sum')


def test_padding_is_not_compared(model: Any) -> None:
    """The second image covers the left half of the input: the mean is over 4 + 2 positions."""
    torch.manual_seed(1)
    images, samples = torch.rand(2, 3, 64, 64), [sample([], [], (64, 64)), sample([], [], (64, 64), (64, 32))]
    part, student = model.data_preprocessor, torch.randn(2, 32, 2, 2)
    away = 1 - nn.functional.cosine_similarity(part.project(student), part.teacher(images, part.normalisation), dim=1)
    counted = torch.tensor([[[1.0, 1], [1, 1]], [[1, 0], [1, 0]]])
    assert part.loss(images, samples, student).item() == about(5 * (away * counted).sum().item() / 6, 'sum')


def test_the_teacher_sees_what_its_own_preprocessor_would_have_made() -> None:
    """Of the same pixels, BGR, 0..255: with another mean and std, in another order, and as the student's."""
    pixels = torch.randint(256, (2, 3, 5, 7), generator=torch.Generator().manual_seed(0)).double()

    def made(settings: dict[str, Any]) -> Tensor:
        ordered = pixels.flip(1) if settings.get('bgr_to_rgb') else pixels
        mean, std = (
            torch.tensor(settings.get(key, default), dtype=torch.double)[:, None, None]
            for key, default in (('mean', [0.0] * 3), ('std', [1.0] * 3))
        )
        return (ordered - mean) / std

    student = {'mean': [0, 0, 0], 'std': [255, 255, 255], 'bgr_to_rgb': True}
    imagenet = {'mean': [123.675, 116.28, 103.53], 'std': [58.395, 57.12, 57.375]}
    for theirs in ({**imagenet, 'bgr_to_rgb': True}, imagenet, {'bgr_to_rgb': True}, {}, student):
        converted = Normalisation.of(student).convert(made(student), Normalisation.of(theirs))
        torch.testing.assert_close(converted, made(theirs))
        back = Normalisation.of(theirs).convert(made(theirs), Normalisation.of(student))
        torch.testing.assert_close(back, made(student))


def test_a_teacher_is_given_pooled_images_and_gives_the_map_that_is_named(tmp_path: Path) -> None:
    """From a detector's checkpoint: its backbone's and neck's weights, in evaluation mode."""
    torch.manual_seed(0)
    cfg = shipped_config(RTDETR)
    changes = {**NARROW, 'data_preprocessor__mean': [100.0, 90.0, 80.0]}
    cfg.merge_from_dict({f'model.{key.replace("__", ".")}': value for key, value in changes.items()})
    detector = MODELS.build(cfg.model).eval()
    torch.save({'state_dict': detector.state_dict(), 'meta': {}}, tmp_path / 'teacher.pth')
    images, mean = torch.rand(2, 3, 128, 192), torch.tensor([100.0, 90.0, 80.0])[:, None, None]
    seen: list[Tensor] = []
    detector.neck.encoder[0].register_forward_hook(lambda _, __, out: seen.append(out))
    with torch.no_grad():
        last = detector.extract_feat(nn.functional.avg_pool2d((images * 255 - mean) / 255, 2))[-1]

    drawn = torch.random.get_rng_state()
    student = Normalisation.of({'mean': [0, 0, 0], 'std': [255, 255, 255], 'bgr_to_rgb': True})
    for output, expected in (('neck.encoder.0', seen[0]), (None, last)):
        teacher = TeacherFeatures(model=cfg.model, checkpoint=str(tmp_path / 'teacher.pth'), output=output, shrink=2)
        actual = teacher(images, student)
        assert actual.shape == (2, 32, 2, 3)
        torch.testing.assert_close(actual, expected, **within(torch.float32))
    assert torch.equal(torch.random.get_rng_state(), drawn), 'building it draws nothing of the run'


def test_nobody_but_the_data_preprocessor_holds_the_teacher(model: Any, plain: Any) -> None:
    """Not the state dict, a moving average, the graph that is exported; ``train`` is not told."""
    losses(model, [1, 1])  # it is built
    part = model.data_preprocessor
    network = part.teacher.network(torch.device('cpu'))
    frozen = {id(p) for p in network.parameters()}
    assert set(model.state_dict()) - set(plain.state_dict()) == KEYS
    assert not frozen & {id(p) for p in model.parameters()} and not any(p.requires_grad for p in network.parameters())
    average = ExpMomentumEMA(model)
    assert set(average.module.state_dict()) == set(model.state_dict())
    assert average.module.data_preprocessor.teacher is part.teacher
    model.train()
    assert not any(module.training for module in network.modules())
    statistics = copy.deepcopy(network.state_dict())
    losses(model, [2, 2])
    assert all(torch.equal(value, statistics[key]) for key, value in network.state_dict().items())
    graph = Deployed(model)
    assert not [key for key in graph.state_dict() if 'projector' in key or 'teacher' in key]


VIT = {'embed_dims': 64, 'num_heads': 2, 'feedforward_channels': 48, 'depth': 2}
TEACHERS = {
    'ResNet of mmdet': {'backbone': {'type': 'ResNet', 'depth': 18, 'base_channels': 8, 'norm_eval': False}},
    'ViT': {'backbone': {'type': 'VisionTransformer', 'arch': 'dinov3-b', 'size_cfg': VIT}, 'shrink': 2},
}
"""Of random weights, 64 channels and stride 32, as RT-DETRv4's is a ViT that is given images of half the size."""


@pytest.mark.parametrize('name', TEACHERS)
def test_teachers_of_other_kinds(name: str) -> None:
    """They teach, and neither learn nor become part of the student."""
    settings = copy.deepcopy(TEACHERS[name])
    teacher = dict(
        type='TeacherFeatures', shrink=settings.pop('shrink', 1), model={**TINY_TEACHER['model'], **settings}
    )
    student = small_detector(**{**NARROW, **DISTILLED, 'data_preprocessor__teacher': teacher}).train()
    loss = losses(student, [1, 2])['loss_distill']
    loss.backward()
    assert loss.isfinite() and 0 < loss.item() < 10
    learn = {key.split('.')[0] for key, p in student.named_parameters() if p.grad is not None and p.grad.any()}
    assert learn == {'backbone', 'neck', 'data_preprocessor'}
    network = student.data_preprocessor.teacher.network(torch.device('cpu'))
    assert type(network['backbone']).__name__ == settings['backbone']['type']
    assert not any(module.training for module in network.modules())
    assert not any(p.requires_grad or p.grad is not None for p in network.parameters())
    assert {key for key in student.state_dict() if key.startswith('data_preprocessor')} == KEYS
    assert not {id(p) for p in network.parameters()} & {id(p) for p in student.parameters()}


def test_a_copy_learns_by_itself(model: Any) -> None:
    """What hooks itself into a detector's forward pass goes with the copy: preflight's, a moving average's."""
    before = losses(model, [1, 1])['loss_distill'].item()
    twin = copy.deepcopy(model)
    nn.init.zeros_(twin.data_preprocessor.projector.weight)
    nn.init.zeros_(twin.data_preprocessor.projector.bias)
    assert losses(twin, [1, 1])['loss_distill'].item() == 5.0  # a right angle to everything
    assert losses(model, [1, 1])['loss_distill'].item() == before


def test_a_teachers_file_of_another_source_is_told_by_the_source(tmp_path: Path) -> None:
    torch.save(dict(state_dict={'backbone.stem.0.weight': torch.zeros(1)}), tmp_path / 'trained.pth')
    teacher = TeacherFeatures(
        model=TINY_TEACHER['model'], checkpoint=str(tmp_path / 'trained.pth'), source='rtdetr', output='backbone'
    )
    with pytest.raises(InputError, match=r"of the kind in .*teacher\.source, which is 'rtdetr': 'mmdet' is what a t"):
        teacher.network(torch.device('cpu'))


def test_prediction_is_the_plain_detectors(model: Any, plain: Any) -> None:
    plain.load_state_dict({key: value for key, value in model.state_dict().items() if key not in KEYS})
    images, samples = random_batch([0, 0], 64, 96)
    with torch.no_grad():
        actual, expected = (detector.eval()(images, mode='tensor') for detector in (model, plain))
        assert len(model(images, samples, mode='predict')) == 2
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(actual, expected))
    model.train()


def test_checkpoints_fit_with_and_without(model: Any, plain: Any) -> None:
    check_fit(plain, model.state_dict(), 'distilled.pth')
    check_fit(model, plain.state_dict(), 'plain.pth')
    with pytest.raises(InputError, match=r'weights 1 missing \(such as neck'):
        check_fit(model, {k: v for k, v in plain.state_dict().items() if k != 'neck.input_proj.0.conv.weight'}, 'x')
    ours = build_detector(RTDETR, **{**DISTILLED, 'data_preprocessor__student_channels': 256})
    theirs = convert_back(ours.state_dict(), 'rtdetr')
    assert set(convert(theirs, 'rtdetr')) == set(ours.state_dict()) - KEYS


MISSING = {'type': 'ConvertedPretrained', 'source': 'rtdetr', 'checkpoint': 'none.pth'}


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (
            {'student': 'neck.encoder.1'},
            r"student='neck.encoder.1' names no module; neck.encoder has neck.encoder.0: name",
        ),
        (
            {'student': 'nek'},
            r"student='nek' names no module; the model has data_preprocessor, backbone, neck, bbox_head",
        ),
        ({'student': 'bbox_head'}, r"student='bbox_head' was not run, where a map .* name a module that gives one"),
        ({'student': 'neck.encoder.0.layers.0'}, r'gives a tensor of 3 dimensions, where a map'),
        (
            {'student_channels': 16},
            r"student='neck.encoder.0' has 32 channels; set .*student_channels, now 16, to that",
        ),
        ({'teacher_channels': 16}, r"teacher's map has 64 channels; set .*teacher_channels, now 16, to that"),
        (
            {'teacher': {**TINY_TEACHER, 'output': 'neck'}},
            r"the teacher: output='neck' names no module; the model has back",
        ),
        (
            {'teacher': {**TINY_TEACHER, 'output': 'backbone.bn'}},
            r"output='backbone.bn' names no module; backbone has ",
        ),
        (
            {'teacher': {**TINY_TEACHER, 'checkpoint': 'none.pth'}},
            r'^model\.data_preprocessor\.teacher\.checkpoint: there is no file none\.pth; train the teacher first, or',
        ),
        (
            {
                'teacher': {
                    'type': 'TeacherFeatures',
                    'model': 'rtdetr_r18vd',
                    'checkpoint': 'http://127.0.0.1:9/no.pth',
                }
            },
            r'^model\.data_preprocessor\.teacher\.checkpoint: cannot fetch http\S+no\.pth \([^;]*\); download it by '
            r'hand, and name the local file$',
        ),
        (
            {'teacher': {'type': 'TeacherFeatures', 'model': 'rtdetr_r18vd', 'checkpoint': 'none.pth'}},
            r'no file none\.pth; train the teacher first \(iouquery train rtdetr_r18vd\), or give the file of one that',
        ),
        (
            {'teacher': {'type': 'TeacherFeatures', 'model': 'none'}},
            r"teacher\.model: there is no shipped config 'none'",
        ),
        (
            {
                'teacher': {
                    'type': 'TeacherFeatures',
                    'model': {'backbone': {**TINY_TEACHER['model']['backbone'], 'init_cfg': MISSING}},
                }
            },
            r'^model\.data_preprocessor\.teacher\.model\.backbone\.init_cfg: there is no file none\.pth; correct the '
            r'path; or name another teacher',
        ),
        ({'teacher': {'type': 'TeacherFeatures', 'model': {}}}, r'has no backbone; name a config that has one'),
    ],
)
def test_what_cannot_be_compared_is_refused(changes: dict[str, Any], message: str) -> None:
    overrides = {f'data_preprocessor__{key}': value for key, value in changes.items()}
    broken = small_detector(**{**NARROW, **DISTILLED, **overrides}).train()
    with pytest.raises(InputError, match=message):
        losses(broken, [1, 1])


def test_the_files_beside_a_missing_one_are_listed(tmp_path: Path) -> None:
    for epoch in (1, 2):
        torch.save({}, tmp_path / f'epoch_{epoch}.pth')
    teacher = {**TINY_TEACHER, 'checkpoint': str(tmp_path / 'epoch_3.pth')}
    broken = small_detector(**{**NARROW, **DISTILLED, 'data_preprocessor__teacher': teacher}).train()
    with pytest.raises(InputError, match=rf'is trained; {tmp_path} has epoch_1\.pth, epoch_2\.pth$'):
        losses(broken, [1, 1])


def test_a_checkpoint_of_another_network_names_the_teachers_entries(tmp_path: Path) -> None:
    torch.save({'state_dict': {'backbone.conv.weight': torch.zeros(1)}}, tmp_path / 'other.pth')
    teacher = TeacherFeatures(model=TINY_TEACHER['model'], checkpoint=str(tmp_path / 'other.pth'))
    with pytest.raises(InputError, match=r'teacher.checkpoint: .*other.pth .* does not fit ResNetVd: missing') as error:
        teacher.network(torch.device('cpu'))
    assert 'init_cfg' not in str(error.value) and 'give prefix' not in str(error.value)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'teacher_channels': 0}, 'teacher_channels must be at least 1'),
        ({'teacher': {**TINY_TEACHER, 'shrink': 1.5}}, 'shrink must be at least 1 and a whole number'),
        ({'teacher': {**TINY_TEACHER, 'model': 3}}, 'teacher.model must be dict'),
    ],
)
def test_arguments_are_looked_at(changes: dict[str, Any], message: str) -> None:
    arguments = {'teacher': TINY_TEACHER, 'student': 'neck', 'student_channels': 8, 'teacher_channels': 8, **changes}
    with pytest.raises(InputError, match=message):
        DistillingDataPreprocessor(**arguments)


def test_it_is_part_of_a_detector_only(model: Any) -> None:
    part = DistillingDataPreprocessor(teacher=TINY_TEACHER, student='x', student_channels=1, teacher_channels=1)
    with pytest.raises(InputError, match='built into Sequential, which is no detector: name it as'):
        nn.Sequential(part)
    nn.Sequential(part)  # it looked once
    left = copy.copy(torch.nn.modules.module._global_module_registration_hooks)
    DistillingDataPreprocessor(teacher=TINY_TEACHER, student='x', student_channels=1, teacher_channels=1)
    nn.Sequential(nn.Identity())  # nobody took that one, which is gone
    assert torch.nn.modules.module._global_module_registration_hooks == left
    assert isinstance(MODELS.build(TINY_TEACHER), TeacherFeatures)
