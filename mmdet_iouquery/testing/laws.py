"""A part under test, and the laws of all that predict."""

from __future__ import annotations

import copy
import random
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from mmdet.registry import MODELS
from torch import Tensor, nn

from ..errors import InputError
from ..structures import Memory

Outputs = Mapping[str, Tensor]
Call = Callable[..., Outputs]
"""A part and inputs (B, ...) to outputs (B, ...) by name."""
Shapes = Sequence[tuple[int, int]]

ROUNDING = 1e-4
"""Of single precision, as a part of an output's largest value."""
WIDE = ((6, 10), (3, 5), (2, 3), (1, 2))
"""Height and width of maps, the finest first: no squares."""
HIGH = tuple((width, height) for height, width in WIDE)
CALLED = 'it can be called as its protocol says'


class LawError(AssertionError):
    """A part breaks a law of its kind: which one, and what came instead."""


@contextmanager
def seeded(seed: int = 0) -> Iterator[None]:
    """Within it all generators begin at a seed, and one thread works; after it all is as it was."""
    kept, threads = (random.getstate(), np.random.get_state()), torch.get_num_threads()
    torch.set_num_threads(1)  # tensors are small: threads would wait for each other
    with torch.random.fork_rng(devices=[]):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(kept[0])
            np.random.set_state(kept[1])
            torch.set_num_threads(threads)


class Subject:
    """A part under test, a copy of what was handed over.

    Args:
        given: the part's config, or a built part.
        registry: where the config's type is registered.
        shared: what a detector hands down where the config does not say it.

    Raises:
        LawError: the constructor does not take that, or changes the config.
        InputError: ``given`` is neither, or of a type that is not registered.
    """

    def __init__(self, given: Any, registry: Any = MODELS, **shared: Any) -> None:
        self._registry, self._shared = registry, shared
        self.config = dict(given) if isinstance(given, Mapping) else None
        kind = type(given) if self.config is None else self.config.get('type')
        if not callable(given if self.config is None else registry.get(kind) if isinstance(kind, str) else kind):
            raise InputError(
                f"a {registry.name} is given built, or as a config such as dict(type='MyPart') of a type that is "
                f'registered, got {given!r}; is the module imported that registers it?'
            )
        self.name = kind if isinstance(kind, str) else str(getattr(kind, '__name__', kind))
        self.part = copy.deepcopy(given) if self.config is None else self.build()
        for parameter in self.part.parameters() if isinstance(self.part, nn.Module) else ():
            if not parameter.any():  # a last layer that begins at zero would let no gradient through
                nn.init.normal_(parameter, std=0.02)

    def build(self, **changes: Any) -> Any:
        """Another one of the config."""
        config = {**self._shared, **copy.deepcopy(self.config or {}), **changes}
        before = copy.deepcopy(config)
        with self.running(f'its constructor takes {", ".join(key for key in config if key != "type")}'):
            part = self._registry.build(config)
        self.hold(config == before, f'its constructor leaves the config {before} as it is', config)
        return part

    def training(self, mode: bool = True) -> Any:
        """The part, in training or in evaluation mode."""
        self.part.train(mode)
        return self.part

    @property
    def trained(self) -> dict[str, nn.Parameter]:
        """The parameters that are to learn."""
        return {name: p for name, p in self.part.named_parameters() if p.requires_grad}

    def hold(self, kept: Any, law: str, came: object) -> None:
        """Raise :class:`LawError` unless a law is kept."""
        if not kept:
            raise LawError(f'{self.name}: expected that {law}, got {came}')

    @contextmanager
    def running(self, law: str) -> Iterator[None]:
        """Within it any error breaks a law, but for one that says what is wrong with the input."""
        try:
            yield
        except (LawError, InputError):
            raise
        except Exception as error:
            raise LawError(f'{self.name}: expected that {law}, got {error!r}') from error

    def record(self, name: str, answer: Any, kind: type[Any]) -> None:
        """Hold the type of an answer, or of what is in it."""
        self.hold(isinstance(answer, kind), f'{name} is of the type {kind.__name__}', type(answer).__name__)

    def tensor(self, name: str, x: Any, shape: Sequence[int], dtype: torch.dtype | None = None) -> None:
        """Hold the form of a tensor; without a ``dtype`` its numbers are floating and finite."""
        self.record(name, x, Tensor)
        self.hold(tuple(x.shape) == tuple(shape), f'{name} has the shape {tuple(shape)}', tuple(x.shape))
        right = x.is_floating_point() if dtype is None else x.dtype == dtype
        self.hold(right, f'{name} is of {dtype or "floating numbers"}', x.dtype)
        self.hold(x.isfinite().all(), f'{name} is finite', 'NaN or infinity')

    def equal(self, law: str, actual: Outputs, expected: Outputs) -> None:
        """Hold that outputs are the same but for rounding."""
        self.hold([*actual] == [*expected], f'{law} ({", ".join(expected)})', ', '.join(actual) or 'none')
        for name, x in expected.items():
            other = actual[name]
            self.hold(other.shape == x.shape, f'{law} ({name} of shape {tuple(x.shape)})', tuple(other.shape))
            if x.numel():
                x, other = x.detach().double(), other.detach().double()
                apart, limit = float((other - x).abs().max()), ROUNDING * float(x.abs().max()) + 1e-6
                self.hold(apart <= limit, f'{law} ({name})', f'a difference of {apart:.3g}')

    def check_calls(self, call: Call, *inputs: Tensor, traced: bool = True) -> None:
        """Hold the laws of all that predict.

        Inputs stay as they are; the same inputs give the same outputs; an image alone gives what it gives in a batch;
        the state dict holds all that the outputs depend on; and no number of a batch is kept in a graph that is
        recorded with another one, as ``len`` of a tensor is.

        Args:
            inputs: of three images.
        """
        part, before = self.training(False), {str(i): x.clone() for i, x in enumerate(inputs)}
        with torch.no_grad(), self.running(CALLED):
            outputs = call(part, *inputs)
            self.equal('inputs stay as they are', {str(i): x for i, x in enumerate(inputs)}, before)
            self.equal('the same inputs give the same twice in evaluation mode', call(part, *inputs), outputs)
            for i in (0, 2):
                alone, among = (
                    call(part, *(x[i : i + 1] for x in inputs)),
                    {k: x[i : i + 1] for k, x in outputs.items()},
                )
                self.equal('an image alone gives what it gives in a batch', alone, among)
            if self.config is not None:
                other = self.build()
                other.load_state_dict(part.state_dict(), strict=True)
                other.eval()
                self.equal('the same config and state dict give the same', call(other, *inputs), outputs)
        law = 'a graph recorded with two images takes three (sizes are taken from shapes, not by len or int)'
        with torch.no_grad(), warnings.catch_warnings(), self.running(law):
            warnings.simplefilter('ignore')  # of height and width, which are constants
            images = [x.flip(0) for x in inputs]
            if traced:
                graph = torch.jit.trace(_Flat(part, call), tuple(x[:2] for x in inputs), check_trace=False)
                expected = call(part, *images)
                self.equal(law, dict(zip(expected, graph(*images))), expected)

    def check_learning(self, outputs: Outputs) -> None:
        """Hold that every parameter to be trained has a gradient of what was computed in training mode."""
        gradients = dict(zip(self.trained, gradients_of(outputs, *self.trained.values())))
        without = [name for name, x in gradients.items() if x is None or not x.any()]
        law = 'every parameter with requires_grad learns, as distributed training waits for it'
        self.hold(not without, law, f'no gradient for {", ".join(without)}')
        wrong = [name for name, x in gradients.items() if x is not None and not x.isfinite().all()]
        self.hold(not wrong, 'gradients are finite', f'NaN or infinity for {", ".join(wrong)}')


class _Flat(nn.Module):
    """A call as a tracer takes one: tensors in, tensors out."""

    def __init__(self, part: nn.Module, call: Call) -> None:
        super().__init__()
        self.part, self.call = part, call

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.call(self.part, *inputs).values())


def gradients_of(outputs: Outputs, *of: Tensor) -> Sequence[Tensor | None]:
    """Gradients of a random weighing of the outputs, None where they do not depend on a tensor."""
    weighed = [(x * torch.randn_like(x)).sum() for x in outputs.values() if x.requires_grad]
    if not weighed or not of:
        return [None] * len(of)
    return torch.autograd.grad(torch.stack(weighed).sum(), of, allow_unused=True, retain_graph=True)


def reaches(outputs: Outputs, x: Tensor) -> bool:
    """Whether a gradient of the outputs gets to a tensor."""
    (gradient,) = gradients_of(outputs, x)
    return gradient is not None and bool(gradient.any())


def memory_of(shapes: Shapes, embed_dims: int, *, padded: bool = False) -> Memory:
    """A memory of noise of three images; ``padded``: the second is two thirds as wide and the third half as high."""
    tokens = torch.randn(3, sum(height * width for height, width in shapes), embed_dims)
    if not padded:
        return Memory(tokens, tuple(shapes))
    extent, levels = torch.tensor([[1.0, 1.0], [2 / 3, 1.0], [1.0, 0.5]]), []
    for height, width in shapes:
        x, y = ((torch.arange(side) + 0.5) / side for side in (width, height))
        beyond = (x > extent[:, :1])[:, None, :] | (y > extent[:, 1:])[:, :, None]
        levels.append(beyond.flatten(1))
    return Memory(tokens, tuple(shapes), torch.cat(levels, dim=1), extent)


def with_other_padding(memory: Memory) -> Memory:
    """The same, with other tokens where there is padding."""
    assert memory.padding is not None
    return memory._replace(tokens=torch.where(memory.padding.unsqueeze(-1), 9.0, memory.tokens))
