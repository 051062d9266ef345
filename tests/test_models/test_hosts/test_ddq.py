"""What DDQ-DETR's adapter adds: an IoU for its class loss, a selector before NMS, clean checkpoints."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from helpers import random_batch
from hosts import flat, greedy_nms, host_config, nms_in_torch
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from torch import nn

from mmdet_iouquery.core import box_cxcywh_to_xyxy, box_iou_elementwise
from mmdet_iouquery.models.hosts.ddq import DistinctAssigner
from mmdet_iouquery.models.losses import BatchedHungarianAssigner
from mmdet_iouquery.structures import EncoderTarget, Memory, Predictions, Selection, Targets


@pytest.fixture(scope='module', autouse=True)
def _nms() -> Iterator[None]:
    with nms_in_torch():
        yield


def build(loss: str = 'focal', **model: object) -> nn.Module:
    torch.manual_seed(0)
    cfg = host_config('DDQDETR', sigmoid=True, loss=loss, **model)
    cfg.type = 'IoUQueryDDQDETR'
    detector = MODELS.build(cfg)
    detector.init_weights()
    return detector


@pytest.mark.parametrize('loss', ['varifocal', 'matchability'])
def test_ddq_hands_a_quality_loss_the_iou(loss: str) -> None:
    """mmdet's own head hands its class loss labels alone, which these can't take."""
    detector = build(loss)
    images, samples = random_batch([3, 2], 64, 96, num_classes=80)
    loss_targets = []
    detector.bbox_head.loss_cls.register_forward_pre_hook(lambda module, inputs: loss_targets.append(inputs[1]))
    losses = flat(detector.train().loss(images, samples))
    assert all(torch.isfinite(value) for value in losses.values())
    for labels, quality in loss_targets:
        positive = labels < 80
        assert positive.any() and (quality[~positive] == 0).all()
        assert (quality[positive] > 0).any() and quality.max() <= 1
    assert any(name.startswith('0_aux_') for name in losses) and any(name.startswith('aux_enc_') for name in losses)


class OwnSelector(nn.Module):
    """One that shares no class with those of the package, and tells how its selection was ranked."""

    selects_tokens = True

    def __init__(self, selector: nn.Module, supervised: bool) -> None:
        super().__init__()
        self.selector, self.supervised = selector, supervised

    def forward(self, memory: Memory, num_queries: int | None = None) -> Selection:
        selection = self.selector(memory, num_queries)
        self.ranked = selection
        return selection if self.supervised else selection._replace(encoder=None, encoder_target=EncoderTarget())


@pytest.mark.parametrize('supervised', [True, False], ids=['supervised', 'without encoder predictions'])
def test_a_selectors_queries_are_distinct_and_ranked_by_its_score(supervised: bool) -> None:
    detector = build(
        query_selector=ConfigDict(type='IoUAwareQuerySelector'), dqs_cfg=dict(type='nms', iou_threshold=0.3)
    )
    images, samples = random_batch([1, 1], 64, 96, num_classes=80)
    detector.eval()
    with torch.no_grad():
        expected = detector.run_parts(detector.extract_feat(images), samples).selection
        detector.query_selector = OwnSelector(detector.query_selector, supervised)
        selection = detector.run_parts(detector.extract_feat(images), samples).selection
    assert torch.equal(selection.token_index, expected.token_index)
    assert supervised is (selection.encoder is not None)
    encoder = detector.query_selector.ranked.encoder
    assert encoder.logits.shape[2] > selection.queries.num_queries
    # the same boxes, whether read of the queries or of the encoder's predictions
    assert torch.equal(detector.query_selector.ranked.queries.anchors_unact.sigmoid(), encoder.boxes[0])
    score = expected.encoder.logits[0].amax(-1)
    boxes_xyxy = box_cxcywh_to_xyxy(selection.queries.anchors_unact.sigmoid())
    for image_score, image_boxes in zip(score, boxes_xyxy):
        kept = len(greedy_nms(image_boxes, torch.arange(len(image_boxes), 0, -1.0), 0.3))
        # those that NMS keeps come first, best first; the others only fill up
        assert kept >= 5 and (image_score[:kept].diff() <= 0).all()
        overlap = box_iou_elementwise(image_boxes[:kept, None], image_boxes[None, :kept]) - torch.eye(kept)
        assert overlap.max() <= 0.3 + 1e-6


def test_queries_put_aside_are_never_matched() -> None:
    """The only query on the box is aside: another takes its place, and none where all are aside."""
    assigner = DistinctAssigner(BatchedHungarianAssigner())
    boxes = torch.tensor([[0.5, 0.5, 0.2, 0.2], [0.6, 0.5, 0.2, 0.2], [0.9, 0.9, 0.1, 0.1]]).expand(2, 1, 3, 4)
    predictions = Predictions(torch.zeros(2, 1, 3, 4), boxes.clone())
    targets = Targets(torch.tensor([1]), torch.tensor([[0.5, 0.5, 0.2, 0.2]]), (1,))
    assert assigner(predictions, targets).query.tolist() == [0, 0]
    assigner.aside = torch.tensor([[[False, False, False]], [[True, False, False]]])
    assert assigner(predictions, targets).query.tolist() == [0, 1]
    assigner.aside = torch.ones(2, 1, 3, dtype=torch.bool)
    assert len(assigner(predictions, targets).query) == 0


@pytest.mark.parametrize('selector', [None, ConfigDict(type='IoUAwareQuerySelector')])
def test_training_adds_no_names_to_a_checkpoint(selector: ConfigDict | None) -> None:
    detector = build(query_selector=selector)
    before = list(detector.state_dict())
    detector.train().loss(*random_batch([2, 1], 64, 96, num_classes=80))
    assert list(detector.state_dict()) == before
