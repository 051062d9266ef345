"""A detector that also learns to see what a trained network sees: feature distillation (RT-DETRv4)."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable
from typing import Any

from mmdet.models.data_preprocessors import DetDataPreprocessor
from mmdet.registry import MODELS
from mmdet.structures import SampleList
from mmengine.model import BaseModel
from torch import Tensor, nn
from torch.nn.modules.module import register_module_module_registration_hook

from ...argument_checks import check_counts
from ...errors import InputError
from ..data_samples import padding_of
from .teacher_features import Normalisation, check_module, map_of

Teacher = Callable[[Tensor, Normalisation], Tensor]
"""Gives a map of normalised images; :class:`TeacherFeatures` does."""

LOSS = 'loss_distill'
"""Its name among a detector's losses."""


@MODELS.register_module()
class DistillingDataPreprocessor(DetDataPreprocessor):
    """mmdet's data preprocessor; in training, one of the detector's maps is compared with a teacher's.

    A Linear brings the student's map to the teacher's channels, and ``loss_distill`` is added to the detector's losses.
    Padding is not compared. In prediction nothing is added; the Linear is in training checkpoints, as a training goes
    on from it, and nowhere else.

    **Why here.** The teacher sees the images of the batch, which neither neck nor head does, and a Linear that is
    trained must be in the model before optimizer and distributed wrapper are made. Of what mmdet builds from a config,
    the data preprocessor is in every detector, knows how images were normalised, and is not asked in prediction for
    more. When it becomes part of a detector it hooks itself into that one's forward pass, before and after, and into
    the one module that it is to listen to. So neither has to know of it, no class of detector, neck or head is another,
    and it works in whatever loop trains the detector.

    Args:
        teacher: a :class:`TeacherFeatures`, by config or built.
        student: the detector's module whose output is compared, such as ``neck.encoder.0``, AIFI in a
            ``HybridEncoder``; of several maps the last is taken.
        student_channels, teacher_channels: of the two maps.
        loss_distill: of the two maps, by config or built; None: ``CosineFeatureLoss``.
        settings: arguments of mmdet's ``DetDataPreprocessor``.

    Raises:
        InputError: an argument is none of these; it is built into something else than a detector; in the first training
            step: there is no such module, it gives no map, or one of other channels.
    """

    def __init__(
        self,
        *,
        teacher: Any,
        student: str,
        student_channels: int,
        teacher_channels: int,
        loss_distill: Any = None,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        check_counts(student_channels=student_channels, teacher_channels=teacher_channels)
        self.student = student
        self.teacher: Teacher = MODELS.build(teacher) if isinstance(teacher, dict) else teacher
        self.projector = nn.Linear(student_channels, teacher_channels)
        loss = loss_distill or {'type': 'CosineFeatureLoss'}
        self.loss_distill: nn.Module = MODELS.build(loss) if isinstance(loss, dict) else loss
        self.normalisation = Normalisation.of(settings)
        self._seen: list[Any] = []
        self._listener: Any = None
        _hook_into_owner(self)

    def project(self, student: Tensor) -> Tensor:
        """The student's map (B, student_channels, h, w) with the teacher's channels."""
        if student.shape[1] != self.projector.in_features:
            raise InputError(
                f'the map of student={self.student!r} has {student.shape[1]} channels; set '
                f'model.data_preprocessor.student_channels, now {self.projector.in_features}, to that'
            )
        return self.projector(student.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def loss(self, images: Tensor, samples: SampleList, student: Tensor) -> Tensor:
        """The weighted loss of the student's map of normalised images (B, 3, H, W)."""
        projected = self.project(student)
        teacher = self.teacher(images, self.normalisation)
        if teacher.shape[1] != projected.shape[1]:
            raise InputError(
                f"the teacher's map has {teacher.shape[1]} channels; set model.data_preprocessor.teacher_channels, now "
                f'{projected.shape[1]}, to that'
            )
        height, width = projected.shape[-2:]
        padding = padding_of(samples, [(height, width)], projected.device)
        weight = None if padding is None else (~padding).reshape(-1, height, width).float()
        return self.loss_distill(projected, teacher, weight)

    def join(self, detector: nn.Module) -> None:
        """Listen to the forward passes of a detector that this has become a part of."""
        if not isinstance(detector, BaseModel):
            raise InputError(
                f'{type(self).__name__} was built into {type(detector).__name__}, which is no detector: name it as '
                'model.data_preprocessor'
            )
        detector.register_forward_pre_hook(self._before, with_kwargs=True)
        detector.register_forward_hook(self._after, with_kwargs=True)

    def _before(self, detector: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._end_listening()
        if _given(detector, args, kwargs).get('mode') == 'loss':
            check_module(detector, self.student, 'model.data_preprocessor.student')
            module = detector.get_submodule(self.student)
            self._listener = module.register_forward_hook(self._listen)

    def _listen(self, _module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
        self._seen.append(output)

    def _end_listening(self) -> list[Any]:
        """What was heard, and nothing more is."""
        if self._listener is not None:
            self._listener.remove()
        seen, self._seen, self._listener = self._seen, [], None
        return seen

    def _after(self, detector: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        seen, given = self._end_listening(), _given(detector, args, kwargs)
        if given.get('mode') != 'loss':
            return None  # it stays as it is
        student = map_of(seen, f'model.data_preprocessor.student={self.student!r}')
        return {**output, LOSS: self.loss(given['inputs'], given['data_samples'], student)}


def _given(detector: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a detector's forward pass by name."""
    return inspect.signature(detector.forward).bind(*args, **kwargs).arguments


def _hook_into_owner(part: DistillingDataPreprocessor) -> None:
    """Have a part join the module that it is next made a part of."""
    waiting = weakref.ref(part)

    def look(owner: nn.Module, _name: str, module: nn.Module | None) -> None:
        joining = waiting()
        if joining is not None and joining is not module:
            return
        handle.remove()
        if joining is not None:
            joining.join(owner)

    handle = register_module_module_registration_hook(look)
