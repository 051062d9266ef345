"""The head: what holds whatever the batch, and the knobs of prediction."""

from __future__ import annotations

import copy

import pytest
import torch
from helpers import NARROW, RTDETRV2, random_batch, sample, shipped_config, small_detector
from mmdet.registry import MODELS
from tolerances import about, within
from torch import nn

from mmdet_iouquery.core import box_cxcywh_to_xyxy
from mmdet_iouquery.errors import InputError
from mmdet_iouquery.models.dense_heads import RTDETRHead
from mmdet_iouquery.models.dense_heads.prediction_settings import PredictionSettings
from mmdet_iouquery.models.dense_heads.rtdetr_head import CRITERION, complete_criterion
from mmdet_iouquery.models.losses import MatchabilityAwareLoss, SetCriterion
from mmdet_iouquery.models.pipeline import select_and_decode
from mmdet_iouquery.structures import Predictions

SIZE = (128, 128)


@pytest.fixture(scope='module')
def detector() -> nn.Module:
    return small_detector()


@pytest.mark.parametrize('changes', RTDETRV2.values(), ids=RTDETRV2)
def test_rtdetrv2s_selections_learn_with_all_else(changes: dict) -> None:
    """Three steps on one batch bring the sum and the encoder's boxes down, and move the encoder's scores.

    Class losses may rise at first: their target is the IoU, which does.
    """
    model = small_detector(bbox_head__denoising=None, **changes, **NARROW).train()
    model.init_weights()
    images, samples = random_batch([3, 0, 2], *SIZE)
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-3)
    scores, seen = model.bbox_head.query_selector.cls_head.weight.detach().clone(), []
    for _ in range(4):
        losses = model.loss(images, samples)
        seen.append({name: value.item() for name, value in losses.items()})
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
    assert sum(seen[3].values()) < sum(seen[0].values()) and seen[3]['enc_loss_bbox'] < seen[0]['enc_loss_bbox']
    assert (model.bbox_head.query_selector.cls_head.weight - scores).abs().mean() > 1e-3


class PickyCriterion(nn.Module):
    """Of a user's, that takes no decoder."""

    def check_decoder(self, decoder: nn.Module) -> None:
        raise InputError(f'no {type(decoder).__name__}')


def test_a_criterion_of_ones_own_is_asked_for_the_decoder() -> None:
    with pytest.raises(InputError, match='no DeformableDecoder'):
        RTDETRHead(num_classes=3, criterion={'type': PickyCriterion})
    assert type(RTDETRHead(num_classes=3, criterion={'type': nn.Identity}).criterion) is nn.Identity


def test_without_denoising(detector: nn.Module) -> None:
    batch = random_batch([2], *SIZE)
    losses = small_detector(bbox_head__denoising=None).train().loss(*batch)
    assert set(losses) == {name for name in detector.train().loss(*batch) if 'dn_' not in name}


def test_denoising_does_not_leak(detector: nn.Module) -> None:
    """Matching predictions do not depend on denoising queries, neither in value nor in gradient."""
    head = detector.eval().bbox_head
    head.decoder.train()  # predictions of every layer; there is no dropout
    images, samples = random_batch([3, 1], *SIZE)
    with torch.no_grad():
        memory = head.memory(detector.extract_feat(images))
        selection = head.query_selector(memory)
        alone = head.decoder(selection.queries, memory)
    denoising = head.denoising(head.targets(samples), 30)
    noisy = denoising.queries._replace(content=denoising.queries.content.detach().requires_grad_())
    decoded = select_and_decode(
        memory, lambda *_: selection, head.decoder, lambda *_: denoising._replace(queries=noisy), head.targets(samples)
    )
    logits, boxes, _ = decoded.matching_predictions
    torch.testing.assert_close(logits, alone.logits, **within(torch.float32))
    torch.testing.assert_close(boxes, alone.boxes, **within('unit'))
    (gradient,) = torch.autograd.grad(logits.sum() + boxes.sum(), noisy.content)
    assert (gradient == 0).all()


@pytest.mark.parametrize(('wanted', 'given'), [(1, 1), (50, 50), (300, 300), (1000, 336)])
def test_any_number_of_queries_on_the_same_weights(detector: nn.Module, wanted: int, given: int) -> None:
    head = detector.eval().bbox_head
    with torch.no_grad():
        memory = head.memory(detector.extract_feat(torch.rand(1, 3, *SIZE)))
        few, many = (head.query_selector(memory, num_queries=n) for n in (1, wanted))
    assert many.token_index.shape == (1, given)
    assert many.token_index[0, 0] == few.token_index[0, 0]


def test_prediction_in_the_original_pixels(detector: nn.Module) -> None:
    images, _ = random_batch([0], *SIZE)
    data = sample([], [], SIZE)
    data.set_metainfo({'scale_factor': (0.5, 0.25), 'ori_shape': (512, 256)})
    detector.eval()
    with torch.no_grad():
        logits, boxes = detector(images, mode='tensor')
        (results,) = detector.bbox_head.predict(detector.extract_feat(images), [data])
        (in_input,) = detector.bbox_head.predict(detector.extract_feat(images), [data], rescale=False)
    best = logits[0].sigmoid().flatten().argmax()
    cx, cy, w, h = boxes[0, best // 5].tolist()
    corners = [
        max(0.0, cx - w / 2) * 256,
        max(0.0, cy - h / 2) * 512,
        min(1, cx + w / 2) * 256,
        min(1, cy + h / 2) * 512,
    ]
    assert results.bboxes[0].tolist() == about(corners, 'px')
    assert results.labels[0] == best % 5 and results.scores[0].item() == pytest.approx(logits.sigmoid().max().item())
    assert results.scores.tolist() == sorted(results.scores.tolist(), reverse=True)
    torch.testing.assert_close(results.bboxes * torch.tensor([0.5, 0.25, 0.5, 0.25]), in_input.bboxes)


def test_detections_are_cut_at_the_image_by_hand(detector: nn.Module) -> None:
    """An image 64 wide and 96 high in an input of 128; the image as it came is 2 and 4 times as large."""
    data, head = sample([], [], SIZE, img_shape=(96, 64)), detector.eval().bbox_head
    data.set_metainfo({'scale_factor': (0.5, 0.25)})
    # from 32 to 96 across and -32 to 160 down; and all of it inside
    boxes = torch.tensor([[0.5, 0.5, 0.5, 1.5], [0.25, 0.5, 0.25, 0.25]])
    logits = torch.tensor([[2.0, -9, -9, -9, -9], [-9, -9, -9, 1.0, -9]])
    handle = head.decoder.register_forward_hook(lambda *_: Predictions(logits[None, None], boxes[None, None]))
    with torch.no_grad():
        x = detector.extract_feat(torch.rand(1, 3, *SIZE))
        (detections,), (in_input,) = (head.predict(x, [data], rescale=rescale) for rescale in (True, False))
    handle.remove()
    assert in_input.bboxes[:2].tolist() == [[32, 0, 64, 96], [16, 48, 48, 80]]
    assert detections.bboxes[:2].tolist() == [[64, 0, 128, 384], [32, 192, 96, 320]]
    assert detections.labels[:2].tolist() == [0, 3]
    torch.testing.assert_close(detections.scores[:2], torch.tensor([2.0, 1.0]).sigmoid())


def test_without_scale_factor_nothing_was_resized() -> None:
    """As from a test pipeline without ``Resize``: a factor of 1, for boxes and for the queries that are kept."""
    detector = small_detector(test_cfg=dict(keep_selected=True), **NARROW).eval()
    images, (with_factor,) = random_batch([0], *SIZE)
    without_factor = copy.deepcopy(with_factor)
    del without_factor.scale_factor
    with torch.no_grad():
        results = [detector.predict(images, [data_sample])[0] for data_sample in (with_factor, without_factor)]
    for name in ('pred_instances', 'selected_queries'):
        assert len(results[1].get(name).bboxes) and torch.equal(
            results[1].get(name).bboxes, results[0].get(name).bboxes
        )


def test_score_threshold_and_limit() -> None:
    model = small_detector(test_cfg__max_per_img=20).eval()
    images, samples = random_batch([0], *SIZE)
    with torch.no_grad():
        x = model.extract_feat(images)
        (everything,) = model.bbox_head.predict(x, samples)
        threshold = everything.scores[7].item()
        model.bbox_head.prediction_settings = PredictionSettings(max_per_img=20, score_thr=threshold)
        (best,) = model.bbox_head.predict(x, samples)
    assert len(everything) == 20 and len(best) == 7
    assert torch.equal(best.bboxes, everything.bboxes[:7])


def test_thresholds_by_class(detector: nn.Module) -> None:
    """Each class has its own; equal ones are one for all."""
    images, samples = random_batch([0], *SIZE)
    head = detector.eval().bbox_head
    detections = []
    with torch.no_grad():
        x = detector.extract_feat(images)
        (everything,) = head.predict(x, samples)
        median = everything.scores.median().item()
        for threshold in (median, [median] * 5, [median, 0.0, 0.999, 0.0, median]):
            head.prediction_settings = PredictionSettings.from_cfg({'score_thr': threshold}, 5)
            detections += head.predict(x, samples)
    head.prediction_settings = PredictionSettings()
    assert torch.equal(detections[0].scores, detections[1].scores) and 0 < len(detections[0]) < len(everything)
    kept = everything.labels.new_tensor([0, 4])[:, None] == everything.labels
    kept = (kept.any(0) & (everything.scores > median)) | (everything.labels == 1) | (everything.labels == 3)
    assert torch.equal(detections[2].bboxes, everything.bboxes[kept])


def test_overlapping_detections_collapse_only_when_asked(detector: nn.Module) -> None:
    """With one box said by every query, whatever the class."""
    images, samples = random_batch([0], *SIZE)
    head = detector.eval().bbox_head
    logits, boxes = torch.randn(1, 1, 30, 5), torch.tensor([0.5, 0.5, 0.4, 0.4]).expand(1, 1, 30, 4).clone()
    boxes[:, :, 7:9, 0] = 0.2  # overlaps the others by 1/7: 0.1 of 0.7
    handle = head.decoder.register_forward_hook(lambda *_: Predictions(logits, boxes))
    counts = []
    with torch.no_grad():
        x = detector.extract_feat(images)
        for threshold in (None, 0.5, 1.0, 0.1):
            head.prediction_settings = PredictionSettings.from_cfg({'overlap_thr': threshold}, 5)
            (detections,) = head.predict(x, samples)
            counts.append(len(detections))
            assert detections.scores[0] == logits.max().sigmoid()
    handle.remove()
    head.prediction_settings = PredictionSettings()
    assert counts == [150, 2, 150, 1]


def test_a_crowd_is_found_by_as_many_queries(detector: nn.Module) -> None:
    """600 boxes, each said surely by one query: all come out, none twice."""
    images, _ = random_batch([0], *SIZE)
    grid = torch.cartesian_prod(torch.arange(20.0), torch.arange(30.0))
    truth = torch.stack([(grid[:, 0] + 0.5) / 20, (grid[:, 1] + 0.5) / 30], 1)
    boxes = torch.cat([truth, torch.full((600, 2), 0.03)], 1)
    labels = torch.randint(5, (600,))
    logits = torch.where(torch.nn.functional.one_hot(labels, 5).bool(), 9.0, -9.0)
    head = detector.eval().bbox_head
    handle = head.decoder.register_forward_hook(lambda *_: Predictions(logits[None, None], boxes[None, None]))
    head.prediction_settings = PredictionSettings(max_per_img=600)
    with torch.no_grad():
        (detections,) = head.predict(detector.extract_feat(images), [sample([], [], SIZE)])
    handle.remove()
    head.prediction_settings = PredictionSettings()
    wanted = box_cxcywh_to_xyxy(boxes) * torch.tensor([SIZE[1], SIZE[0]] * 2)
    order = [rows[:, 0].mul(1000).add(rows[:, 1]).argsort() for rows in (detections.bboxes, wanted)]
    torch.testing.assert_close(detections.bboxes[order[0]], wanted[order[1]])
    assert torch.equal(detections.labels[order[0]], labels[order[1]])


def test_padding_holds_no_query(detector: nn.Module) -> None:
    """A 128 x 64 image in a 128 x 128 input: queries start inside, boxes end inside."""
    images, samples = torch.zeros(1, 3, *SIZE), [sample([], [], SIZE, img_shape=(128, 64))]
    images[..., :64] = torch.rand(1, 3, 128, 64)
    detector.eval()
    with torch.no_grad():
        x = detector.extract_feat(images)
        memory, selection, *_ = detector.bbox_head.run_parts(x, samples)
        (results,) = detector.bbox_head.predict(x, samples)
    columns = torch.cat([torch.arange(w).repeat(h).add(0.5).div(w) for h, w in memory.spatial_shapes])
    assert torch.equal(memory.padding[0], columns > 0.5)
    assert (columns[selection.token_index[0]] < 0.5).all()
    assert results.bboxes[:, 0::2].max() <= 64


def test_bad_labels_are_named_before_they_do_harm(detector: nn.Module) -> None:
    images, _ = random_batch([1], *SIZE)
    with pytest.raises(ValueError, match=r'images/one.jpg has the label 5.*num_classes=5'):
        detector.train().loss(images, [sample([[0, 0, 9, 9]], [5], SIZE)])


@pytest.mark.parametrize(
    ('cfg', 'message'),
    [
        ({'max_per_image': 3}, r"\['max_per_image'\].*max_per_img"),
        ({'score_thr': 1.5}, 'score_thr must lie in'),
        ({'num_queries': 0}, 'num_queries must be at least 1'),
        ({'score_thr': [0.1, 0.2]}, 'score_thr has 2 numbers for 5 classes'),
        ({'overlap_thr': 1.5}, 'overlap_thr must lie in'),
    ],
)
def test_wrong_test_cfg(cfg: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PredictionSettings.from_cfg(cfg, num_classes=5)


def test_keys_of_other_heads_are_passed_over() -> None:
    assert PredictionSettings.from_cfg({'nms': {'type': 'nms'}, 'nms_pre': 1000}, 5) == PredictionSettings()


def test_building_leaves_the_config_alone() -> None:
    cfg = shipped_config('rtdetr/rtdetr_r18vd_8xb2-72e_coco.py').model.bbox_head
    before = copy.deepcopy(cfg)
    keys = [set(MODELS.build(cfg).state_dict()) for _ in range(2)]
    assert cfg == before and keys[0] == keys[1]


def test_defaults_are_rtdetr() -> None:
    """A head with nothing named has the parts, and the losses, of the shipped config."""
    head = MODELS.build({'type': 'RTDETRHead', 'num_classes': 80, 'denoising': {'type': 'ContrastiveDenoising'}})
    full = MODELS.build(shipped_config('rtdetr/rtdetr_r50vd_8xb2-72e_coco.py').model.bbox_head)
    assert {k: v.shape for k, v in head.state_dict().items()} == {k: v.shape for k, v in full.state_dict().items()}
    assert vars(head.criterion.assigner.costs) == vars(full.criterion.assigner.costs)
    for name in ('loss_cls', 'loss_bbox', 'loss_iou'):
        ours, theirs = getattr(head.criterion, name), getattr(full.criterion, name)
        assert type(ours) is type(theirs) and ours.loss_weight == theirs.loss_weight


def test_a_set_criterion_gets_what_it_is_not_given() -> None:
    mal = {'type': 'MatchabilityAwareLoss'}
    for named in ({}, {'type': 'SetCriterion'}, {'type': SetCriterion}):
        criterion = RTDETRHead(num_classes=5, criterion={**named, 'loss_cls': mal}).criterion
        assert type(criterion) is SetCriterion and type(criterion.loss_cls) is MatchabilityAwareLoss
        assert [loss.loss_weight for loss in (criterion.loss_cls, criterion.loss_bbox, criterion.loss_iou)] == [1, 5, 2]
        assert vars(criterion.assigner.costs) == vars(MODELS.build(CRITERION).assigner.costs)
    full = {name: {'type': name} for name in CRITERION} | {'type': 'SetCriterion'}
    other = {'type': 'TaskAlignedCriterion', 'loss_cls': mal}
    assert complete_criterion(full) == full and complete_criterion(other) == other
    with pytest.raises(TypeError, match="unexpected keyword argument 'los_cls'"):
        RTDETRHead(num_classes=5, criterion={'los_cls': mal})


def test_wrong_number_of_maps(detector: nn.Module) -> None:
    with pytest.raises(ValueError, match=r'built for 3 maps.*given 2'):
        detector.bbox_head([torch.rand(1, 256, 4, 4)] * 2)
