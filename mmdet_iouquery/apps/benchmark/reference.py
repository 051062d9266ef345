"""Code of a model's authors, from a checkout of the user's, as a side to measure.

Nothing of it is part of this package: a folder is put on Python's path, and its own classes are called, built by its
own configs for COCO.
"""

from __future__ import annotations

import importlib
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ...errors import InputError
from ...structures import Decoded
from .models import teacher_map
from .reference_outputs import constants, dfine_outputs, rtdetr_outputs, rtdetrv2_outputs

NAME = "the authors'"


class Repository(NamedTuple):
    """Where a family's code is, and how it is laid out."""

    address: str
    commit: str
    """The one that our figures compare with."""
    folder: str
    """What to give of a clone."""
    package: str
    zoo: str
    """A folder in it by which it is known."""
    configs: tuple[str, ...]
    """Of a model; ``{}`` is what :func:`_size` gives, and the first that there is counts."""
    outputs: Callable[[Decoded], dict[str, Any]]
    """What its criterion is given for predictions of ours."""


REPOSITORIES = {
    'rtdetr': Repository(
        'https://github.com/lyuwenyu/RT-DETR',
        '068dfde',
        'the folder rtdetr_pytorch of a clone',
        'src',
        'src/zoo/rtdetr',
        ('configs/rtdetr/rtdetr_{}_6x_coco.yml',),
        rtdetr_outputs,
    ),
    'rtdetrv2': Repository(
        'https://github.com/lyuwenyu/RT-DETR',
        '068dfde',
        'the folder rtdetrv2_pytorch of a clone',
        'src',
        'configs/rtdetrv2',
        tuple(f'configs/rtdetrv2/rtdetrv2_{{}}_{epochs}_coco.yml' for epochs in ('120e', '7x', '6x')),
        rtdetrv2_outputs,
    ),
    'dfine': Repository(
        'https://github.com/Peterande/D-FINE',
        '4a1f73a',
        'a clone',
        'src',
        'src/zoo/dfine',
        ('configs/dfine/dfine_hgnetv2_{}_coco.yml',),
        dfine_outputs,
    ),
    'deim': Repository(
        'https://github.com/Intellindust-AI-Lab/DEIM',
        '09d35d5',
        'a clone',
        'engine',
        'engine/deim',
        ('configs/deim_dfine/deim_hgnetv2_{}_coco.yml',),
        dfine_outputs,
    ),
    'deim_rtdetrv2': Repository(
        'https://github.com/Intellindust-AI-Lab/DEIM',
        '09d35d5',
        'a clone',
        'engine',
        'configs/deim_rtdetrv2',
        ('configs/deim_rtdetrv2/deim_{}_120e_coco.yml', 'configs/deim_rtdetrv2/deim_{}_60e_coco.yml'),
        rtdetrv2_outputs,
    ),
    'deimv2': Repository(
        'https://github.com/Intellindust-AI-Lab/DEIMv2',
        '0fff8d4',
        'a clone',
        'engine',
        'engine/deim',
        ('configs/deimv2/deimv2_dinov3_{}_coco.yml', 'configs/deimv2/deimv2_hgnetv2_{}_coco.yml'),
        dfine_outputs,
    ),
    'ecdet': Repository(
        'https://github.com/Intellindust-AI-Lab/EdgeCrafter',
        '706d037',
        'the folder ecdetseg of a clone',
        'engine',
        'engine/edgecrafter',
        ('configs/ecdet/ecdet_{}.yml',),
        dfine_outputs,
    ),
    'rtdetrv4': Repository(
        'https://github.com/RT-DETRs/RT-DETRv4',
        'df44122',
        'a clone',
        'engine',
        'engine/rtv4',
        ('configs/rtv4/rtv4_hgnetv2_{}_coco.yml',),
        dfine_outputs,
    ),
}


_FROM_SCRATCH = {
    'PResNet': {'pretrained': False},
    'HGNetv2': {'pretrained': False},
    'DINOv3STAs': {'weights_path': None},
    'ViTAdapter': {'weights_path': None, 'skip_load_backbone': True},
}
"""Settings of their backbones, by which nothing is fetched."""


class Reference:
    """Models and criterion of the authors', with their configs' settings for COCO and random weights.

    Args:
        folder: what their repository has the code in.
        family: whose it is, one of :data:`REPOSITORIES`.

    Raises:
        InputError: the folder is not it, or what it needs is not installed (torchvision among others).
    """

    def __init__(self, folder: str | Path, family: str = 'rtdetr') -> None:
        self.folder, self.family = Path(folder).resolve(), family
        self.repository = REPOSITORIES[family]
        self._criteria: dict[str, Any] = {}
        address, commit, give, package, zoo = self.repository[:5]
        if not (self.folder / zoo).is_dir():
            raise InputError(f'--reference {folder}: no {zoo} in there; give {give} of {address} at {commit}')
        if str(self.folder) not in sys.path:
            sys.path.insert(0, str(self.folder))
        try:
            importlib.import_module(package)  # registers their classes
            self._config_class = importlib.import_module(f'{package}.core').YAMLConfig
        except ImportError as error:
            raise InputError(f'--reference {folder}: it does not import ({error}); install what it needs') from error

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process imports the code anew."""
        return Reference, (self.folder, self.family)

    def model(self, name: str, side: int | None) -> nn.Module:
        """A model by our name of it; ``side`` px of square images for which it keeps its tables, None: none."""
        size = {'eval_spatial_size': None if side is None else [side, side]}
        if self.family == 'rtdetr':  # random sizes in a step are left out
            settings: dict[str, Any] = {
                'HybridEncoder': size,
                'RTDETRTransformer': size,
                'RTDETR': {'multi_scale': None},
            }
        elif self.family == 'ecdet' and side is None:
            settings = {}  # its configs cannot do without one, of which training makes no use
        else:
            settings = size
        model: nn.Module = self._config(name, **settings).model
        for buffer in model.buffers():  # their ViTs leave masks of biases at NaN until a file of weights fills them
            if buffer.is_floating_point():
                buffer.nan_to_num_(nan=1.0, posinf=float('inf'), neginf=-float('inf'))
        return model

    def deployed(self, name: str, side: int, device: torch.device) -> nn.Module:
        """As they ship it for prediction: ``deploy()``, which merges what their modules can merge."""
        model = self.model(name, side).eval().to(device)
        module: Any
        for module in model.modules():
            if hasattr(module, 'convert_to_deploy'):
                module.convert_to_deploy()
        return model

    def export(self, name: str, side: int, path: Path) -> None:
        """Write an ONNX file as their own tool does: :meth:`deployed`, their post-processing, opset 17, any batch."""
        model = self.deployed(name, side, torch.device('cpu'))
        postprocessor = self._config(name).postprocessor.deploy()
        with torch.no_grad():
            for parameter in model.parameters():  # their layers begin as copies, of which an exporter writes one
                parameter.add_(1e-4 * torch.randn_like(parameter))

        class Exported(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.model, self.postprocessor = model, postprocessor

            def forward(self, images: Tensor, orig_target_sizes: Tensor) -> Any:
                return self.postprocessor(self.model(images), orig_target_sizes)

        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter('ignore')
            torch.onnx.export(
                Exported().eval(),
                (torch.rand(1, 3, side, side), torch.tensor([[side, side]])),
                str(path),
                input_names=['images', 'orig_target_sizes'],
                output_names=['labels', 'boxes', 'scores'],
                dynamic_axes={'images': {0: 'N'}, 'orig_target_sizes': {0: 'N'}},
                opset_version=17,
                dynamo=False,
            )

    @staticmethod
    def feed(images: Tensor) -> dict[str, Any]:
        """Inputs of :meth:`export`'s file for images (B, 3, H, W) in [0, 1]."""
        sizes = torch.tensor([[images.shape[3], images.shape[2]]] * images.shape[0])
        return {'images': images.numpy(), 'orig_target_sizes': sizes.numpy()}

    def criterion(self, name: str) -> Any:
        """Matching and losses of a model, by our name of it."""
        if name not in self._criteria:
            criterion: Any = self._config(name).criterion
            if self.family == 'rtdetrv4':  # asked for every layer, of which one has maps, it makes zeros on a GPU
                criterion.losses = [loss for loss in criterion.losses if loss != 'distill']
            self._criteria[name] = criterion
        return self._criteria[name]

    def targets(self, labels: Sequence[Tensor], boxes: Sequence[Tensor]) -> list[dict[str, Tensor]]:
        """Ground truth in their form: labels (T,) and normalised cx, cy, w, h (T, 4) of each image."""
        return [{'labels': image_labels, 'boxes': some} for image_labels, some in zip(labels, boxes)]

    def loss(self, name: str, model: nn.Module, images: Tensor, targets: list[dict[str, Any]]) -> Tensor:
        """As their engine: the criterion outside of autocast; a teacher's map is given (see :func:`teacher_map`)."""
        teaching = self.family == 'rtdetrv4'
        given = {'teacher_encoder_output': teacher_map(images)} if teaching else {}
        outputs = model(images, targets, **given)
        criterion = self.criterion(name)
        with torch.autocast(images.device.type, enabled=False):
            losses = [*criterion(outputs, targets).values()]
            if teaching:
                distilled = criterion.loss_distillation(outputs, targets, None, None)['loss_distill']
                losses.append(criterion.weight_dict['loss_distill'] * distilled)
            return sum(losses)

    def loss_of(self, name: str, decoded: Decoded, targets: list[dict[str, Tensor]]) -> Callable[[], Tensor]:
        """A call of a model's criterion with predictions of ours."""
        criterion, fixed = self.criterion(name), constants(decoded)
        return lambda: sum(criterion({**self.repository.outputs(decoded), **fixed}, targets).values())

    def _config(self, name: str, **settings: Any) -> Any:
        paths = [self.folder / pattern.format(_size(name)) for pattern in self.repository.configs]
        path = next((path for path in paths if path.exists()), paths[-1])
        self._forget_configs()
        return self._config_class(str(path), **_FROM_SCRATCH, **settings)

    def _forget_configs(self) -> None:
        """Their ``load_config`` merges into a default that it keeps: a second config would be given the first's."""
        load = getattr(sys.modules.get(f'{self.repository.package}.core.yaml_utils'), 'load_config', None)
        if load is not None and load.__defaults__ is not None:
            load.__defaults__ = tuple({} if isinstance(value, dict) else value for value in load.__defaults__)


def _size(name: str) -> str:
    """Of a model, as the names of the authors' configs have it: ``s`` of D-FINE-S, ``r50vd_m`` of RT-DETRv2-R50-M."""
    depth = re.search(r'R\d+(-M)?$', name)
    if depth is None:
        return name.rpartition('-')[2].lower()
    number, _, medium = depth[0].lower().partition('-')
    return f'{number}vd_{medium}'.rstrip('_')
