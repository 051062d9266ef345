"""Evaluate the detector as it is used in prediction."""

from __future__ import annotations

import torch
from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from ...argument_checks import check_choice
from ...deploy import prepare_for_inference

DTYPES = ('float32', 'float16', 'bfloat16')


@HOOKS.register_module()
class PrepareForInferenceHook(Hook):
    """Test the copy that :func:`~mmdet_iouquery.prepare_for_inference` makes, in a type of numbers of choice.

    Args:
        dtype: one of :data:`DTYPES`.

    Raises:
        InputError: another ``dtype``, or one that the detector cannot take.
    """

    priority = 'VERY_LOW'  # after an EMA hook has put its weights in place

    def __init__(self, dtype: str = 'float32') -> None:
        check_choice(DTYPES, dtype=dtype)
        self.dtype: torch.dtype = getattr(torch, dtype)
        self._whole: nn.Module | None = None

    def before_test_epoch(self, runner: Runner) -> None:
        self._whole = runner.model
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        runner.model = prepare_for_inference(model, self.dtype)

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        runner.model, self._whole = self._whole, None
