"""Small trainings within the test's own process."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import MessageHub, MMLogger
from mmengine.runner import Runner

from mmdet_iouquery.datasets import find_coco_set
from mmdet_iouquery.engine.quickstart import config_text


def small_run(data: Path, work_dir: Path, options: dict[str, Any], *, image_size: int = 64) -> Runner:
    """A runner of the quickstart's model on a small set, two pictures a step, which logs nothing.

    Args:
        options: dotted keys of the config and their values.
    """
    work_dir.mkdir(parents=True, exist_ok=True)
    path = work_dir / 'given.py'
    path.write_text(config_text(find_coco_set(data), iters=1000, image_size=image_size))
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
