"""The anchor-box decoder: mmdet's own on equal weights, and laws."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hosts import mmdets_to_ours
from mmdet.models.dense_heads import DABDETRHead
from mmdet.models.layers import DABDetrTransformerDecoder
from mmdet.registry import MODELS
from tolerances import within
from torch import Tensor, nn

from mmdet_iouquery.core import sine_token_encoding
from mmdet_iouquery.structures import Memory, Queries

DIMS, CLASSES, SHAPES, TOKENS = 256, 5, ((5, 7),), 35


def build(**settings: Any) -> nn.Module:
    small = {'num_layers': 3, 'feedforward_channels': 64}
    torch.manual_seed(1)
    decoder = MODELS.build({'type': 'DABDecoder', 'num_classes': CLASSES, 'embed_dims': DIMS, **small, **settings})
    for head in decoder.bbox_heads:  # refine, which heads that start at zero do not
        nn.init.normal_(head.layers[-1].weight, std=0.05)
    return decoder


def queries(number: int = 6, batch: int = 2) -> Queries:
    return Queries(torch.randn(batch, number, DIMS), torch.randn(batch, number, 4))


def memory(shapes: tuple = SHAPES, **more: Any) -> Memory:
    return Memory(torch.randn(2, sum(h * w for h, w in shapes), DIMS), shapes, **more)


def mmdets(query_scale: str, modulate: bool, keep: bool) -> tuple[DABDetrTransformerDecoder, DABDETRHead]:
    attention = {'embed_dims': DIMS, 'num_heads': 8}
    layer = {
        'self_attn_cfg': {**attention, 'cross_attn': False},
        'cross_attn_cfg': {**attention, 'cross_attn': True, 'keep_query_pos': keep},
        'ffn_cfg': {'embed_dims': DIMS, 'feedforward_channels': 64, 'num_fcs': 2, 'act_cfg': {'type': 'PReLU'}},
    }
    decoder = DABDetrTransformerDecoder(
        num_layers=3, layer_cfg=layer, query_scale_type=query_scale, with_modulated_hw_attn=modulate
    )
    loss = {'type': 'FocalLoss', 'use_sigmoid': True}
    return decoder, DABDETRHead(num_classes=CLASSES, embed_dims=DIMS, loss_cls=loss)


@pytest.mark.parametrize(
    ('query_scale', 'modulate', 'keep'),
    [('cond_elewise', True, False), ('cond_scalar', True, False), ('fix_elewise', False, True)],
)
def test_equals_mmdets_on_equal_weights(query_scale: str, modulate: bool, keep: bool) -> None:
    decoder, head = (module.eval() for module in mmdets(query_scale, modulate, keep))
    ours = build(query_scale=query_scale, modulate_hw_attn=modulate, keep_query_pos=keep)
    state = {mmdets_to_ours(key): value for module in (decoder, head) for key, value in module.state_dict().items()}
    ours.load_state_dict(state, strict=True)
    padding = torch.zeros(2, TOKENS, dtype=torch.bool)
    padding[1, 20:] = True
    given, read = queries(), memory(padding=padding, position=torch.randn(2, TOKENS, DIMS))
    mask = torch.zeros(6, 6, dtype=torch.bool)
    mask[4:, :4] = True
    with torch.no_grad():
        hidden, references = decoder(
            query=given.content,
            key=read.tokens,
            query_pos=given.anchors_unact,
            key_pos=read.position,
            reg_branches=head.fc_reg,
            key_padding_mask=padding,
            self_attn_masks=mask,
        )
        logits, boxes = head(hidden, references)
        every_layer = ours.train()(given, read, mask)
        last = ours.eval()(given, read, mask)
    torch.testing.assert_close(every_layer.logits, logits, **within(torch.float32))
    torch.testing.assert_close(every_layer.boxes, boxes, **within(torch.float32))
    assert torch.equal(last.logits[0], every_layer.logits[-1]) and torch.equal(last.boxes[0], every_layer.boxes[-1])


def test_anchors_are_detached_between_layers_unless_told() -> None:
    """The last layer's boxes reach the first layer's box head only through anchors that are not detached."""
    for detach in (True, False):
        decoder = build(share_bbox_head=False, detach_anchors=detach).train()
        boxes = decoder(queries(), memory()).boxes
        (gradient,) = torch.autograd.grad(
            boxes[-1].sum(), decoder.bbox_heads[0].layers[-1].bias, allow_unused=True, retain_graph=True
        )
        reached = gradient is not None and bool((gradient != 0).any())
        assert reached is not detach
        (nearest,) = torch.autograd.grad(boxes[-1].sum(), decoder.bbox_heads[1].layers[-1].bias)
        assert (nearest != 0).any()  # look forward twice


def test_modulation_is_by_width_and_height_apart() -> None:
    """A wider anchor changes the x half of what cross-attention is given by the inverse ratio, the y half not."""
    decoder, given, read = build(num_layers=1).eval(), queries(), memory()
    seen: list[Tensor] = []
    decoder.layers[0].cross_attn.q_sine.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    wider = given.anchors_unact.sigmoid() * torch.tensor([1, 1, 1.3, 1])
    with torch.no_grad():
        decoder(given, read)
        decoder(given._replace(anchors_unact=torch.logit(wider.clamp(max=0.999))), read)
    ratio = given.anchors_unact.sigmoid()[..., 2] / wider.clamp(max=0.999)[..., 2]
    y, x = seen[0].chunk(2, dim=-1)
    torch.testing.assert_close(seen[1], torch.cat([y, x * ratio[..., None]], dim=-1), **within(torch.float32))


def test_own_token_codes_are_those_of_the_centres() -> None:
    decoder, given, read = build().eval(), queries(), memory()
    position = sine_token_encoding(SHAPES, DIMS, temperature=20.0).expand(2, -1, -1)
    with torch.no_grad():
        ours, explicit = decoder(given, read), decoder(given, read._replace(position=position))
    torch.testing.assert_close(ours.boxes, explicit.boxes)


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'cross_attention': 'sparse'}, "cross_attention must be one of .* got 'sparse'"),
        ({'query_scale': 'none'}, "query_scale must be one of .* got 'none'"),
        ({'embed_dims': 258}, 'multiple of 4, for the sine codes, got 258'),
        ({'num_heads': 7}, 'embed_dims 256 must be divisible by num_heads 7'),
    ],
)
def test_bad_settings_are_named(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**settings)


def test_another_number_of_maps_is_refused() -> None:
    with pytest.raises(ValueError, match='built for 3 levels'):
        build(cross_attention='deformable', num_levels=3)(queries(), memory())
