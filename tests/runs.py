"""Small trainings within the test's own process."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import MessageHub, MMLogger
from mmengine.runner import Runner

from mmdet_iouquery import find_coco_set
from mmdet_iouquery.apps.quickstart.command import config_text

SMALL_MODEL = """
model.update(
    backbone=dict(
        _delete_=True, type='CSPNeXt', widen_factor=0.125, deepen_factor=0.33, out_indices=(2, 3, 4),
        norm_cfg=dict(type='BN'), act_cfg=dict(type='SiLU'),
    ),
    neck=dict(in_channels=[32, 64, 128], out_channels=32, num_heads=4, feedforward_channels=64),
)
model['bbox_head'].update(
    in_channels=[32] * 3,
    embed_dims=32,
    query_selector=dict(num_queries=20),
    denoising=dict(num_denoising=4),
    decoder=dict(num_layers=1, num_heads=4, feedforward_channels=64),
)
param_scheduler = [dict(type='LinearLR', start_factor=0.5, by_epoch=False, begin=0, end=1)]
"""
"""Ends a config of the quickstart with a model of 0.5 million parameters: quick steps, and checkpoints of 6 MB."""


def small_run(data: Path, work_dir: Path, options: dict[str, Any], more: str = '', *, image_size: int = 64) -> Runner:
    """A runner of the quickstart's model on a small set, two images a step, which logs nothing.

    Args:
        options: dotted keys of the config and their values.
        more: text that ends the config, such as :data:`SMALL_MODEL`.
    """
    work_dir.mkdir(parents=True, exist_ok=True)
    path = work_dir / 'given.py'
    path.write_text(config_text(find_coco_set(data), iters=1000, image_size=image_size) + more)
    cfg = Config.fromfile(path)
    cfg.merge_from_dict(
        {
            'work_dir': str(work_dir),
            'experiment_name': f'{work_dir.parent.name}-{work_dir.name}',
            'train_dataloader.batch_size': 2,
            'model.bbox_head.denoising.num_denoising': 6,
            'model.bbox_head.query_selector.num_queries': 20,
            'custom_hooks': [],
            'param_scheduler': [],
            'val_cfg': None,
            'val_dataloader': None,
            'val_evaluator': None,
            'test_cfg': None,
            'test_dataloader': None,
            'test_evaluator': None,
            **copy.deepcopy(options),  # merging takes marks out of them
        }
    )
    MessageHub._instance_dict.clear()  # what the run before has left: the number of its step, among others
    runner = Runner.from_cfg(cfg)
    for handler in MMLogger.get_current_instance().handlers:
        if not isinstance(handler, logging.FileHandler):
            handler.setLevel(logging.CRITICAL)
    return runner
