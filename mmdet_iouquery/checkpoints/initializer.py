"""Start a module from another project's file: ``init_cfg=dict(type='ConvertedPretrained', ...)``."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from mmengine.logging import print_log
from mmengine.model import BaseModule, update_init_info
from mmengine.registry import WEIGHT_INITIALIZERS
from mmengine.runner import CheckpointLoader
from torch import Tensor, nn

from ..argument_checks import check_flags
from ..errors import InputError
from .convert import convert
from .files import read_checkpoint, unpickling_message


@WEIGHT_INITIALIZERS.register_module()
class ConvertedPretrained:
    """Load a file of another project into a module, its keys renamed, every one of them accounted for.

    mmengine's ``Pretrained`` loads what happens to have the same name and is silent about the rest.

    Registered with mmengine, beside ``Pretrained``: there ``init_weights`` looks also when no default scope is set.

    Args:
        checkpoint: a local file or folder, or any address that mmengine's ``CheckpointLoader`` takes.
        source: whose file it is, one of :data:`~mmdet_iouquery.checkpoints.SOURCES`.
        prefix: of a detector's file, the part to load, e.g. ``backbone.``; None: all.
        part: the module's part that the file is of, e.g. ``vit`` of a ``ViTAdapter``; the others start as they do
            without a file. None: the whole module.
        partial: load what the module has too, in the same shape, such as a small backbone's share of a larger one's
            weights, and log how much that was; False: all of it has to fit.
    """

    def __init__(
        self, checkpoint: str, source: str, prefix: str | None = None, *, part: str | None = None, partial: bool = False
    ) -> None:
        check_flags(partial=partial)
        self.checkpoint = checkpoint
        self.source = source
        self.prefix = prefix
        self.part = part
        self.partial = partial

    def __call__(self, module: nn.Module) -> None:
        """Load; afterwards the module's children take no part in ``init_weights``, which would undo it.

        Raises:
            InputError: the file cannot be read or converted, its keys or shapes are not the module's, or, with
                ``partial``, none of them are; there is no such part.
        """
        print_log(f'load {self.source} weights from {self.checkpoint}', logger='current')
        weights, part = self.weights_for(module), self._part(module)
        afresh = [key for key in part.state_dict() if key not in weights and not key.endswith('num_batches_tracked')]
        if self.partial:
            print_log(
                f'{len(weights)} weights of the file fit {type(part).__name__}; started afresh: '
                f'{_some(afresh) or "none"}',
                logger='current',
            )
        part.load_state_dict(weights, strict=False)
        for child in part.modules():
            if child is not module and isinstance(child, BaseModule):
                child.is_init = True
        with suppress(AssertionError, AttributeError):  # mmengine keeps notes only while it initialises a model
            update_init_info(module, init_info=f'{type(self).__name__}: load {self.source} from {self.checkpoint}')

    def weights_for(self, module: nn.Module) -> dict[str, Tensor]:
        """What of the file is loaded into a module, or into its ``part``, by the keys there.

        Raises:
            InputError: see :meth:`__call__`; names the file.
        """
        part, content = self._part(module), load_checkpoint(self.checkpoint)
        try:
            weights = convert(content, self.source)
        except InputError as error:
            raise InputError(f'{self.checkpoint}: {error}') from error
        if self.prefix is not None:
            weights = {k[len(self.prefix) :]: v for k, v in weights.items() if k.startswith(self.prefix)}
        weights = self._shared(part, weights) if self.partial else weights
        self._check(part, weights)
        return weights

    def _part(self, module: nn.Module) -> nn.Module:
        if self.part is None:
            return module
        parts = dict(module.named_children())
        if self.part not in parts:
            raise InputError(
                f'{type(module).__name__} has no part {self.part!r} for {self.checkpoint}; name one of '
                f'{", ".join(parts)}, or leave part out where the file is of the whole'
            )
        return parts[self.part]

    def _shared(self, module: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        own = module.state_dict()
        shared = {key: x for key, x in weights.items() if key in own and x.shape == own[key].shape}
        if not shared:
            raise InputError(
                f'{self.checkpoint} (source {self.source!r}) has nothing in common with {type(module).__name__}, of '
                f'{len(weights)} weights such as {_some([*weights], 1)}; name the file of a similar model, or leave '
                'init_cfg out'
            )
        return shared

    def _check(self, module: nn.Module, weights: Mapping[str, Tensor]) -> None:
        own = module.state_dict()
        # batch norm's step counter is no weight, and frozen norms are saved without
        missing = [
            key for key in own if key not in weights and not key.endswith('num_batches_tracked') and not self.partial
        ]
        unexpected = [key for key in weights if key not in own]
        shapes = [
            f'{key} {tuple(value.shape)} for {tuple(own[key].shape)}'
            for key, value in weights.items()
            if key in own and value.shape != own[key].shape
        ]
        problems = {'missing in the file': missing, 'unknown to the module': unexpected, 'of another shape': shapes}
        differences = '; '.join(f'{problem}: {_some(keys)}' for problem, keys in problems.items() if keys)
        if differences:
            raise InputError(
                f'{self.checkpoint} (source {self.source!r}) does not fit {type(module).__name__}: {differences}. Is '
                'it for the same depth, and does it hold this part only? Otherwise give prefix'
            )
        check_constants(module, weights, self.checkpoint)


def _some(keys: list[str], most: int = 5) -> str:
    more = f' and {len(keys) - most} more' if len(keys) > most else ''
    return ', '.join(keys[:most]) + more


def check_constants(model: nn.Module, weights: Mapping[str, Tensor], checkpoint: object) -> None:
    """Ask each part that keeps numbers beside its weights (``check_constants``) whether they were trained with its own.

    Args:
        checkpoint: the file, named in the error.

    Raises:
        InputError: they were not.
    """
    for name, module in model.named_modules():
        check = getattr(module, 'check_constants', None)
        if check is not None:
            try:
                check(weights, f'{name}.' if name else '')
            except InputError as error:
                raise InputError(f'{checkpoint} does not fit the config: {error}') from error


def is_local(checkpoint: str) -> bool:
    """Whether a checkpoint is named by a path, not by an address."""
    return ':' not in checkpoint or os.path.exists(checkpoint)


def load_checkpoint(checkpoint: str) -> Mapping[str, Any]:
    """Content of a checkpoint, code in it refused: a local file or folder, or an address that mmengine can fetch.

    Raises:
        InputError: it cannot be fetched or read, or is no checkpoint.
    """
    if is_local(checkpoint):
        return read_checkpoint(checkpoint)
    try:
        with _weights_only():
            return CheckpointLoader.load_checkpoint(checkpoint, map_location='cpu', logger='silent')
    except pickle.UnpicklingError as error:
        raise InputError(unpickling_message(checkpoint, error)) from error
    except OSError as error:
        raise InputError(
            f'cannot fetch {checkpoint} ({error}); download it by hand and name the local file, or set the init_cfg '
            'that names it to None to start from random weights'
        ) from error


def load_from_safetensors(filename: str, map_location: Any = None) -> Mapping[str, Any]:  # noqa: ARG001  on the CPU
    """How mmengine loads such files, which it does not know itself: in training, testing and mmdet's inference."""
    return read_checkpoint(filename)


CheckpointLoader.register_scheme(r'.*\.safetensors$', load_from_safetensors, force=True)


@contextmanager
def _weights_only() -> Iterator[None]:
    """Have every ``torch.load`` inside refuse code, whatever mmengine asks it for: torch's own switch."""
    name = 'TORCH_FORCE_WEIGHTS_ONLY_LOAD'
    before = os.environ.get(name)
    os.environ[name] = '1'
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
