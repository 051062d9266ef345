"""Where in a model numbers stop being finite."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn


def tensors_of(value: Any) -> Iterator[Tensor]:
    """All floating-point tensors in a nest of tuples, lists and dicts."""
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_of(item)
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors_of(item)


def gradients_are_finite(parameters: Iterable[nn.Parameter]) -> bool:
    """Whether every gradient is finite, by their norms: one number is read from the device."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if hasattr(nn.utils, 'get_total_norm'):  # all at once, from torch 2.6 on
        return bool(nn.utils.get_total_norm(gradients).isfinite())
    return not gradients or bool(torch.stack([gradient.norm() for gradient in gradients]).isfinite().all())


def is_finite(value: Any) -> bool:
    """Whether no tensor in ``value`` holds inf or NaN."""
    return all(bool(x.isfinite().all()) for x in tensors_of(value))


def origin_in_forward(model: nn.Module, run: Callable[[], Any]) -> str | None:
    """The first module, in the order in which they finish, to hand on numbers that are not finite.

    Args:
        run: runs the model's forward pass, to its end: several processes talk to each other in it.

    Returns:
        What was found, in words; None: every number was finite.
    """
    origins: list[str] = []
    names = {module: name or 'the model' for name, module in model.named_modules()}

    def look(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if not origins and not is_finite(output):
            origins.append(_describe(names[module], module, (args, kwargs), output))

    handles = [module.register_forward_hook(look, with_kwargs=True) for module in names]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return origins[0] if origins else None


def _describe(name: str, module: nn.Module, inputs: Any, output: Any) -> str:
    title = f'{name} ({_kind(module)})'
    broken = [key for key, parameter in module.named_parameters(recurse=False) if not is_finite(parameter)]
    if broken:
        return f'{title}: its {broken[0]} is not finite'
    if not is_finite(inputs):
        return f'what enters {title}, though every module before gave finite numbers'
    numbers = torch.cat([x.detach().float().flatten() for x in tensors_of(output)])
    largest = max((float(x.detach().abs().max()) for x in tensors_of(inputs) if x.numel()), default=0.0)
    count = int((~numbers.isfinite()).sum())
    return f'{title}: {count} of {numbers.numel()} numbers it gives are inf or NaN; it was given at most {largest:.3g}'


def origin_in_backward(model: nn.Module, run: Callable[[], Tensor]) -> str | None:
    """The module that is given finite gradients on the way back, and hands on others.

    Args:
        run: runs the forward pass and gives the loss. The parameters' gradients are replaced.

    Returns:
        What was found, in words; None: every gradient was finite.
    """
    names = {module: name or 'the model' for name, module in model.named_modules()}
    given_broken: set[nn.Module] = set()
    origins: list[nn.Module] = []  # in the order of the way back

    def given(module: nn.Module, gradient: Tensor) -> None:
        if not is_finite(gradient):
            given_broken.add(module)

    def handed_on(module: nn.Module, gradient: Tensor) -> None:
        if module not in given_broken and not is_finite(gradient):
            origins.append(module)

    def watch(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        for check, value in ((given, output), (handed_on, (args, kwargs))):
            for tensor in tensors_of(value):
                if tensor.requires_grad:
                    tensor.register_hook(partial(check, module))

    handles = [module.register_forward_hook(watch, with_kwargs=True) for module in names]
    try:
        loss = run()
    finally:
        for handle in handles:
            handle.remove()
    model.zero_grad(set_to_none=True)
    loss.backward()
    if origins:
        return f'{names[origins[0]]} ({_kind(origins[0])}): it hands on a gradient that is not, given a finite one'
    broken = [key for key, parameter in model.named_parameters() if not is_finite(parameter.grad)]
    return f'the gradient of {broken[0]}' if broken else None


def _kind(module: nn.Module) -> str:
    """The class that a config, or torch, has: on a CPU its place may be taken by one that trains faster."""
    return next(kind.__name__ for kind in type(module).__mro__ if '.cpu.' not in kind.__module__)
