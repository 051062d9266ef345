"""``torch.compile`` and ``torch.export`` take a detector as one graph, which serves all sizes and batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers import FAMILY, NARROW, small_detector
from tolerances import within
from torch import Tensor, nn

from mmdet_iouquery import prepare_for_inference


def detector(changes: dict[str, Any]) -> nn.Module:
    """A model whose boxes are not its anchors, as they are before training; each token is a query."""
    few = {
        'neck__num_fusion_blocks': 1,
        'bbox_head__decoder__num_layers': 1,
        'bbox_head__query_selector__num_queries': 10**4,
    }
    model = small_detector(**{**changes, **few})
    for parameter in model.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    return model.eval()


def predictor(model: nn.Module) -> Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]:
    def predict(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits, boxes, and which token each is of."""
        decoded = model.bbox_head.run_parts(model.extract_feat(images))
        return decoded.predictions.logits[-1], decoded.predictions.boxes[-1], decoded.selection.token_index

    return predict


def by_token(logits: Tensor, boxes: Tensor, index: Tensor) -> list[Tensor]:
    """In the tokens' order: rounding decides between nearly equal scores."""
    return [output.take_along_dim(index.argsort(1).unsqueeze(-1), 1) for output in (logits, boxes)]


def recorder(graphs: list[Any]) -> Callable[..., Any]:
    """A compiler that keeps the graphs it is given, and leaves them as they are."""

    def compile_graph(graph: torch.fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    return compile_graph


@pytest.mark.parametrize(
    ('prepare', 'changes'),
    [(False, NARROW), (True, {}), (True, FAMILY['D-FINE'])],  # prepared, wide layers are of other kinds
    ids=['as built', 'prepared', 'D-FINE, prepared'],
)
@torch.no_grad()
def test_one_graph_for_the_first_size_and_one_for_all_others(prepare: bool, changes: dict[str, Any]) -> None:
    """Anything that broke the graph would be an error here.

    Two images at once: of one, torch asks of each small map on the CPU whether a convolution is worth oneDNN, and
    compiles anew where the answer changes.
    """
    torch.compiler.reset()
    model = detector(changes)
    if prepare:
        model = prepare_for_inference(model)
    predict, graphs = predictor(model), []
    compiled = torch.compile(predict, fullgraph=True, backend=recorder(graphs))
    for number, size in enumerate([(64, 64), (96, 128), (128, 128), (160, 192), (224, 96), (96, 224), (64, 64)]):
        images = torch.rand(2, 3, *size)
        for ours, expected in zip(by_token(*compiled(images)), by_token(*predict(images))):
            # convolutions of another layout, and prepared ones torch's own, in a graph: logits of some 5 differ by 1e-6
            torch.testing.assert_close(ours, expected, **within(torch.float32))
        assert len(graphs) == min(number + 1, 2), size


class Predictor(nn.Module):
    """What :func:`predictor` gives, as a module."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return predictor(self.model)(images)


@pytest.mark.parametrize('name', [name for name in FAMILY if name != 'DEIMv2-N'])  # layers as DEIMv2-Atto's
@torch.no_grad()
def test_an_export_takes_any_number_of_images(name: str) -> None:
    model, images = Predictor(prepare_for_inference(detector(FAMILY[name]))), torch.rand(3, 3, 64, 96)
    exported = torch.export.export(model, (images[:2],), dynamic_shapes=({0: torch.export.Dim('images', max=8)},))
    for number in (1, 3):
        for ours, expected in zip(by_token(*exported.module()(images[:number])), by_token(*model(images[:number]))):
            torch.testing.assert_close(ours, expected, **within(torch.float32))
