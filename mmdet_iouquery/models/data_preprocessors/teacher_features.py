"""What a trained network sees in the images of a batch."""

from __future__ import annotations

import copy
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.model import initialize
from torch import Tensor, nn

from ...argument_checks import check_counts
from ...config_files import find_config
from ...errors import InputError

_PARTS = ('backbone', 'neck')
_PLACE = 'model.data_preprocessor.teacher'
_NAMED = 5
"""Files that a message lists."""


class Normalisation(NamedTuple):
    """What a data preprocessor makes of the pixels that it is given: (pixel - mean) / std, channels in its order."""

    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    swaps_channels: bool = False
    """Whether the first and the last channel change places, before mean and std are applied."""

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Normalisation:
        """Of the arguments of mmdet's ``DetDataPreprocessor``."""
        swaps = bool(settings.get('bgr_to_rgb') or settings.get('rgb_to_bgr'))
        if settings.get('mean') is None:
            return cls(swaps_channels=swaps)
        mean, std = (tuple(float(value) for value in settings[name]) for name in ('mean', 'std'))
        return cls(mean, std, swaps)

    def convert(self, images: Tensor, other: Normalisation) -> Tensor:
        """Images (B, 3, H, W) of this one as ``other`` would have made them, exactly."""
        if self == other:
            return images
        mean, std, other_mean, other_std = (
            images.new_tensor(values)[:, None, None] for values in (self.mean, self.std, other.mean, other.std)
        )
        pixels = images * std + mean
        return ((pixels.flip(1) if self.swaps_channels != other.swaps_channels else pixels) - other_mean) / other_std


@MODELS.register_module()
class TeacherFeatures:
    """A frozen network, asked for one of its maps: the backbone of any detector, or its backbone and neck.

    It is no ``nn.Module``, so a model that holds it has none of its weights: they are in no checkpoint, no moving
    average and no exported file, no optimizer sees them, ``train`` does not reach them, and copies of the model share
    them. The network is built, and its files are read, when it is first asked: who predicts needs neither.

    Args:
        model: the teacher's ``model`` as in a config: ``backbone``, where it is to be used ``neck``, and
            ``data_preprocessor`` for mean, std and order of the channels that the teacher was trained with (without
            one, those of the student); what else there is is not used. Or the path of a config, or the name of a
            shipped one.
        checkpoint: of the whole detector, file or address, with the weights of backbone and neck; None: these are as
            their ``init_cfg`` says.
        source: whose file the checkpoint is, a source of ``iouquery convert``.
        output: the module whose output is the map, such as ``neck.encoder.0``; of several maps the last is taken.
            None: what comes last, the neck or the backbone.
        shrink: pooling of the images by so many pixels before the teacher sees them. RT-DETRv4's teacher, with patches
            of 16 pixels, has 2, by which its map has the student's stride of 32.

    Raises:
        InputError: an argument is none of these; when it is first asked: a config or a file is missing or does not fit,
            or ``output`` names no module or one that gives no map.
    """

    def __init__(
        self,
        *,
        model: Mapping[str, Any] | str,
        checkpoint: str | None = None,
        source: str = 'mmdet',
        output: str | None = None,
        shrink: int = 1,
    ) -> None:
        if not isinstance(model, (str, Mapping)):
            raise InputError(f"teacher.model must be dict(backbone=dict(type='...')) or a config's path, got {model!r}")
        check_counts(shrink=shrink)
        self.model = model
        self.checkpoint = checkpoint
        self.source = source
        self.output = output
        self.shrink = shrink
        self._network: nn.ModuleDict | None = None
        self._normalisation: Normalisation | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> TeacherFeatures:
        """Itself: it never changes."""
        return self

    @torch.no_grad()
    def __call__(self, images: Tensor, normalisation: Normalisation) -> Tensor:
        """The map (B, C, h, w) of images (B, 3, H, W) that were normalised so."""
        network = self.network(images.device)
        x: Any = images if self._normalisation is None else normalisation.convert(images, self._normalisation)
        if self.shrink > 1:
            x = F.avg_pool2d(x, self.shrink)
        seen: list[Any] = []
        name = self.output or [*network][-1]
        handle = network.get_submodule(name).register_forward_hook(lambda _, __, output: seen.append(output))
        try:
            for part in network.values():
                x = part(x)
        finally:
            handle.remove()
        return map_of(seen, f'the teacher: output={name!r}')

    def network(self, device: torch.device) -> nn.ModuleDict:
        """Backbone and neck under these names, frozen, on a device."""
        if self._network is None:
            settings = self._settings()
            with torch.random.fork_rng(devices=[]):  # the run draws the same numbers with a teacher and without
                self._network = self._built(settings)
            if settings.get('data_preprocessor') is not None:
                self._normalisation = Normalisation.of(settings['data_preprocessor'])
        if next(self._network.parameters()).device != device:
            self._network.to(device)
        return self._network

    def _settings(self) -> Mapping[str, Any]:
        settings: Any = self.model
        if isinstance(settings, str):
            try:
                path = find_config(settings)
            except InputError as error:
                raise InputError(f'{_PLACE}.model: {error}') from error
            settings = Config.fromfile(path).get('model') or {}
        if not isinstance(settings.get('backbone'), Mapping):
            raise InputError(f'the model of the teacher, {self.model!r}, has no backbone; name a config that has one')
        return settings

    def _built(self, settings: Mapping[str, Any]) -> nn.ModuleDict:
        network = nn.ModuleDict()
        for name in _PARTS:
            if settings.get(name) is None:
                continue
            cfg = copy.deepcopy(settings[name])
            if self.checkpoint is not None:
                cfg['init_cfg'] = None  # the checkpoint has its weights
            part: Any = MODELS.build(cfg)
            if self.checkpoint is not None:
                self._load(part, name)
            elif hasattr(part, 'init_weights'):
                self._initialize(part, name)
            network[name] = part
        check_module(network, self.output, 'the teacher: output')
        return network.eval().requires_grad_(False)

    def _initialize(self, part: Any, name: str) -> None:
        try:
            part.init_weights()
        except InputError as error:
            raise InputError(
                f'{_PLACE}.model.{name}.init_cfg: {error}; or name another teacher, such as a larger detector trained '
                f'here, in {_PLACE}.model and .checkpoint (docs/distillation.md)'
            ) from error

    def _load(self, part: nn.Module, name: str) -> None:
        weights = dict(checkpoint=self.checkpoint, source=self.source, prefix=f'{name}.')
        try:
            initialize(part, dict(type='ConvertedPretrained', **weights))
        except InputError as error:
            what, _, _ = str(error).partition('; ')  # the remedy behind it is that of an init_cfg
            fetching = what.startswith('cannot fetch')
            remedy = 'download it by hand, and name the local file' if fetching else self._remedy()
            raise InputError(f'{_PLACE}.checkpoint: {what}; {remedy}') from error

    def _remedy(self) -> str:
        if '://' in str(self.checkpoint) or Path(str(self.checkpoint)).expanduser().exists():
            return (
                f'it must be of the network in {_PLACE}.model, and of the kind in {_PLACE}.source, which is '
                f"{self.source!r}: 'mmdet' is what a training here leaves"
            )
        training = ''
        if isinstance(self.model, str):
            config = str(Path(self.model).resolve()) if Path(self.model).is_file() else self.model
            training = f' (iouquery train {shlex.quote(config)})'
        folder = Path(str(self.checkpoint)).expanduser().parent
        present = ', '.join(sorted(path.name for path in folder.glob('*.pth'))[-_NAMED:])
        there = f'; {folder} has {present}' if present else ''
        return f'train the teacher first{training}, or give the file of one that is trained{there}'


def check_module(network: nn.Module, name: str | None, argument: str) -> None:
    """Raise :class:`InputError` unless a network has a module of this name; None: it is not asked for one."""
    known = [module for module, _ in network.named_modules() if module]
    if name is not None and name not in known:
        outer = max((module for module in known if name.startswith(f'{module}.')), key=len, default='')
        inside = [module for module in known if module.rpartition('.')[0] == outer]
        raise InputError(
            f'{argument}={name!r} names no module; {outer or "the model"} has {", ".join(inside) or "none inside"}: '
            'name one of these, or one further inside'
        )


def map_of(outputs: Sequence[Any], where: str) -> Tensor:
    """The map (B, C, h, w) in what a module gave: of several calls that of the last, of several maps the last.

    Raises:
        InputError: there is none.
    """
    output = outputs[-1] if outputs else None
    if isinstance(output, (list, tuple)) and output:
        output = output[-1]
    if not isinstance(output, Tensor) or output.dim() != 4:
        kind = f'a tensor of {output.dim()} dimensions' if isinstance(output, Tensor) else type(output).__name__
        gives = f'gives {kind}' if outputs else 'was not run'
        raise InputError(f'{where} {gives}, where a map (B, C, h, w) is compared; name a module that gives one')
    return output
