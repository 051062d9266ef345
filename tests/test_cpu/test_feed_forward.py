"""Feed-forward networks whose activations are computed again for gradients: the same values, less kept."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from mmdet_iouquery.cpu import accelerate_training, products, restore
from mmdet_iouquery.cpu.products import LeanMLP, LeanSwiGLU
from mmdet_iouquery.models.layers import MLP, DotProductAttention, SwiGLU

IN, HIDDEN, ROWS = 96, 200, 600


def mlp(act: str = 'GELU') -> nn.Module:
    return MLP(IN, HIDDEN, IN, num_layers=2, act_cfg={'type': act})


def swiglu() -> nn.Module:
    return SwiGLU(IN, HIDDEN)


def accelerated(network: nn.Module) -> nn.Module:
    holder = nn.Sequential(copy.deepcopy(network))
    accelerate_training(holder)
    return holder[0]


def kept(network: Callable[[Tensor], Tensor], x: Tensor) -> int:
    """Numbers kept for the backward pass, of a row."""
    storages: dict[int, Tensor] = {}

    def keep(saved: Tensor) -> Tensor:
        if ROWS in saved.shape:  # no weights
            storages[saved.untyped_storage().data_ptr()] = saved
        return saved

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda saved: saved):
        network(x)
    return sum(saved.untyped_storage().nbytes() // saved.element_size() for saved in storages.values()) // ROWS


@pytest.mark.parametrize('offered', [True, False], ids=["oneDNN's products", "torch's"])
@pytest.mark.parametrize('frozen', ['none', 'input', 'weights'])
@pytest.mark.parametrize(('make', 'kind'), [(mlp, LeanMLP), (swiglu, LeanSwiGLU)], ids=['MLP', 'SwiGLU'])
def test_values_and_gradients_are_the_same(
    make: Callable[[], nn.Module],
    kind: type[nn.Module],
    frozen: str,
    offered: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if offered and not products.is_offered():
        pytest.skip('no such products here, or no faster ones')
    monkeypatch.setattr(products, 'is_offered', lambda: offered)
    torch.manual_seed(0)
    plain = make().double()
    for p in plain.parameters():
        nn.init.normal_(p, std=0.2)
        p.requires_grad_(frozen != 'weights')
    lean = accelerated(plain.float())
    plain.double()
    assert type(lean) is kind
    x = torch.randn(2, ROWS, IN, requires_grad=frozen != 'input')
    exact_x = x.detach().double().requires_grad_(x.requires_grad)
    grad = torch.randn(2, ROWS, IN)
    y, z = lean(x), plain(exact_x)
    y.backward(grad)
    z.backward(grad.double())
    pairs = [(y, z), *((p.grad, q.grad) for p, q in zip((x, *lean.parameters()), (exact_x, *plain.parameters())))]
    assert sum(p is not None for p, _ in pairs) == {'none': 6, 'input': 5, 'weights': 2}[frozen]
    for single, double in pairs:
        assert (single is None) == (double is None)
        if single is not None:  # rounding of sums of some hundred numbers
            assert (single.double() - double).abs().max() <= 3e-6 * double.abs().max()


def test_what_is_kept() -> None:
    """The input, and what the first layer gives; before, also what activation and product of the halves give."""
    x = torch.randn(1, ROWS, IN, requires_grad=True)
    assert kept(accelerated(mlp()), x) == IN + HIDDEN
    assert kept(mlp(), x) == IN + 2 * HIDDEN
    assert kept(accelerated(swiglu()), x) == IN + 2 * HIDDEN
    assert kept(swiglu(), x) == IN + 4 * HIDDEN
    assert kept(accelerated(mlp('ReLU')), x) == kept(mlp('ReLU'), x) == IN + HIDDEN  # ReLU keeps what it gives alone


@pytest.mark.skipif(not products.is_offered(), reason='no such products here, or no faster ones')
def test_attention_keeps_what_it_gives_once() -> None:
    """As the projection of all heads takes it: queries, keys, values and that, of each token."""
    attention, proj = accelerated(DotProductAttention()), accelerated(nn.Linear(IN, IN))

    def attend(x: Tensor) -> Tensor:
        query, key, value = (y.unflatten(-1, (4, -1)).transpose(1, 2) for y in (2 * x, 3 * x, 4 * x))
        return proj(attention(query, key, value).transpose(1, 2).flatten(2))

    assert kept(attend, torch.randn(1, ROWS, IN, requires_grad=True)) == 4 * IN


@pytest.mark.parametrize('make', [mlp, swiglu, partial(mlp, 'ReLU')], ids=['MLP', 'SwiGLU', 'ReLU'])
def test_elsewhere_it_is_the_plain_network(make: Callable[[], nn.Module]) -> None:
    """In prediction, of few rows, under autocast, traced, and restored."""
    torch.manual_seed(0)
    network, x = make(), torch.randn(1, ROWS, IN)
    lean = accelerated(network)
    called: list[nn.Module] = []
    for linear in (m for m in lean.modules() if isinstance(m, nn.Linear)):
        linear.register_forward_hook(lambda module, *_: called.append(module))

    def calls_both(given: Tensor) -> bool:
        called.clear()
        lean(given)
        return len(called) == 2

    assert calls_both(x) == (type(getattr(network, 'act', None)) is nn.ReLU)
    assert calls_both(x[:, :2])
    with torch.no_grad():
        assert calls_both(x)
    with torch.autocast('cpu', torch.bfloat16):
        assert calls_both(x)
    assert torch.equal(torch.jit.trace(lean, x)(x), network(x))
    assert torch.equal(lean.eval()(x), network(x))
    holder = nn.Sequential(lean.train())
    restore(holder)
    assert type(holder[0]) is type(network) and calls_both(x)
