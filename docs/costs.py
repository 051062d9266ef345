"""Counts parameters and FLOPs of the shipped configs into ``configs/costs.json``, which tables read.

``make costs`` counts those that are not in the file, ``make costs ARGS=--all`` all of them. An image has the size to
which the config's test pipeline resizes, its sides in the order long, short where their ratio is kept.
"""

from __future__ import annotations

import argparse
import importlib
import json
from typing import Any

import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.utils import register_all_modules
from mmengine.config import Config

from mmdet_iouquery.apps.cost import count_flops, count_parameters
from mmdet_iouquery.compat import dispatch_mode
from mmdet_iouquery.config_files import COSTS, config_names, config_path, config_root

COUNTED = {f'aten.{name}.default' for name in ('convolution', 'mm', 'addmm', 'bmm', 'baddbmm')}


class NotComputed(dispatch_mode()):  # type: ignore[misc]
    """What has multiplications to count is not computed: it gives zeros of the right shape."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Of every operation, below autograd."""
        if str(func) not in COUNTED:
            return func(*args, **(kwargs or {}))
        shapes = [value.to('meta') if isinstance(value, torch.Tensor) else value for value in args]
        result = func(*shapes, **(kwargs or {}))
        return torch.zeros(result.shape, dtype=result.dtype)


def cost_of(config: Config) -> dict[str, Any]:
    """Parameters of the model of a config, and FLOPs of a forward pass on an image of ``image_size`` (h, w) in px."""
    settings = config.model.to_dict()
    for node in (settings, settings['backbone']):
        node['init_cfg'] = None
    height, width = _image_size(config, settings['data_preprocessor'].get('pad_size_divisor', 1))
    model = MODELS.build(settings).eval()
    shape = (height, width)
    sample = DetDataSample(metainfo=dict(img_shape=shape, ori_shape=shape, batch_input_shape=shape, pad_shape=shape))
    image = torch.zeros(1, 3, height, width)
    with NotComputed():
        flops = count_flops(lambda: model(image, [sample], mode='tensor'))
    return {'parameters': count_parameters(model), 'flops': flops, 'image_size': [height, width]}


def _image_size(config: Config, divisor: int) -> tuple[int, int]:
    (resize,) = [step for step in config.test_dataloader.dataset.pipeline if step.type.endswith('Resize')]
    long, short = max(resize.scale), min(resize.scale)
    height, width = (short, long) if resize.keep_ratio else resize.scale[::-1]
    return -(-height // divisor) * divisor, -(-width // divisor) * divisor


def _all_kept(*boxes_and_scores: torch.Tensor, **_: float) -> torch.Tensor:
    """In place of NMS: every box, best first."""
    return boxes_and_scores[1].argsort(descending=True)


def main() -> None:
    """Count, and write the file anew after each config."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--all', action='store_true', help='count those again that are in the file')
    again = parser.parse_args().all
    register_all_modules(init_default_scope=True)
    # DDQ's, which has no multiplications to count, is compiled where there is a compiler; all boxes are kept instead
    importlib.import_module('mmcv.ops.nms').ext_module.nms = _all_kept
    path = config_root() / COSTS
    known = json.loads(path.read_text(encoding='utf-8')) if path.is_file() and not again else {}
    names = config_names()
    for name in names:
        if name not in known:
            known[name] = cost_of(Config.fromfile(config_path(name)))
            print(name, known[name], flush=True)
            lines = ',\n'.join(f'{json.dumps(key)}: {json.dumps(known[key])}' for key in names if key in known)
            path.write_text(f'{{\n{lines}\n}}\n', encoding='utf-8')


if __name__ == '__main__':
    main()
