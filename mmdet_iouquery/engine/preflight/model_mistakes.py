"""What goes with an exception from within a model: who was given what."""

from __future__ import annotations

import inspect
import re
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import torch
from mmengine.structures import InstanceData
from torch import Tensor, nn

from ...compat import calls
from ...config_options import type_name
from ...errors import InputError
from ...models.dense_heads import RTDETRHead
from ...models.losses import IoUVarifocalLoss, MatchabilityAwareLoss
from .config_mistakes import entries
from .small_batch import SmallImage

_BY_PREPROCESSOR = "model.data_preprocessor=dict(type='DetDataPreprocessor') sets it"
_REMEDIES = {
    'scale_factor': "add dict(type='Resize', scale_factor=1.0) to its pipeline, or set it in a step of your own",
    'batch_input_shape': _BY_PREPROCESSOR,
    'pad_shape': _BY_PREPROCESSOR,
    **dict.fromkeys(('img_shape', 'ori_shape', 'img_id', 'img_path'), 'name it in meta_keys of its PackDetInputs'),
}


class MapShapes:
    """Notes the shapes of what backbone and neck of a model give.

    Args:
        model: gets forward hooks.
    """

    def __init__(self, model: nn.Module) -> None:
        self.given: dict[str, list[tuple[int, ...]]] = {}
        self.model = model
        for name in ('backbone', 'neck'):
            module = getattr(model, name, None)
            if isinstance(module, nn.Module):
                module.register_forward_hook(lambda _module, _given, maps, name=name: self._note(name, maps))

    def facts(self, error: Exception, cfg: Mapping[str, Any]) -> list[str]:
        """What of the shapes an exception comes from, or the module that it comes from.

        Args:
            error: out of the model.
            cfg: of the model.
        """
        misfits = [*self.misfits(cfg), *self.too_few_tokens(error, cfg), *self.too_few_scores(error, cfg)]
        return misfits or [*self.failed_in(error)]

    def too_few_tokens(self, error: Exception, cfg: Mapping[str, Any]) -> Iterator[str]:
        """Where mmdet's detectors select more queries than an image has tokens."""
        queries, tokens = cfg.get('num_queries'), self._num_tokens()
        if 'index k out of range' in str(error) and queries and tokens < queries:
            yield (
                f'an image of this size has {tokens} tokens on all maps together, of which model.num_queries={queries} '
                f'cannot be selected: set it to {tokens} or fewer, or take larger images'
            )

    def selects_tokens(self, cfg: Mapping[str, Any]) -> bool:
        """Whether the model is one of mmdet's that selects its queries from tokens, and needs as many.

        Args:
            cfg: of the model.
        """
        two_stage = getattr(self.model, 'as_two_stage', False) and cfg.get('query_selector') is None
        return bool(two_stage and cfg.get('num_queries'))

    def check_tokens(self, cfg: Mapping[str, Any], image: SmallImage, section: str) -> None:
        """Refuse more queries than an image has tokens.

        Args:
            cfg: of the model, which :meth:`selects_tokens`, in evaluation mode.
            image: the smallest of the data.
            section: of the config, which names them.

        Raises:
            InputError: it has fewer; advises a number that images of the least height and width have.
        """
        tokens = self._tokens_of(image.size)
        if 0 < tokens < cfg['num_queries']:
            raise InputError(
                f'{section}: {image.path} comes as {image.size[0]}x{image.size[1]} (height x width) and has {tokens} '
                f'tokens on all maps together, of which model.num_queries={cfg["num_queries"]} cannot be selected: set '
                f'it to {self._tokens_of(image.bound)} or fewer, take larger images, or leave this one out'
            )

    def fewer_tokens(self, size: tuple[int, int]) -> Iterator[str]:
        """Where a head of this package's selects more queries than an image has tokens, and so makes do with these.

        Args:
            size: of the image, height and width in px; the model is in evaluation mode.
        """
        head = getattr(self.model, 'bbox_head', None)
        if not isinstance(head, RTDETRHead) or not getattr(head.query_selector, 'selects_tokens', False):
            return
        tokens, queries = self._tokens_of(size), getattr(head.query_selector, 'num_queries', 0)
        if 0 < tokens < queries:
            yield (
                f'images of {size[0]}x{size[1]} (height x width) have {tokens} tokens on all maps together, so that '
                f'each becomes one of the {queries} queries and nothing is selected; larger images, or fewer queries '
                '(model.bbox_head.query_selector.num_queries), may learn much better'
            )

    def _tokens_of(self, size: tuple[int, int]) -> int:
        """What the maps of a blank image of this size have, padded as its batch would be; 0: they cannot be had."""
        divisor = getattr(getattr(self.model, 'data_preprocessor', None), 'pad_size_divisor', 1)
        padded = (-(-side // divisor) * divisor for side in size)
        blank = next(self.model.parameters()).new_zeros(1, 3, *padded)
        self.given.clear()
        with suppress(Exception), torch.no_grad():  # what does not go through is told of by the trial
            self.model.extract_feat(blank)  # type: ignore[operator]
        return self._num_tokens()

    def too_few_scores(self, error: Exception, cfg: Mapping[str, Any]) -> Iterator[str]:
        """Where mmdet's detectors give more detections than their queries have scores."""
        queries, wanted = cfg.get('num_queries'), (cfg.get('test_cfg') or {}).get('max_per_img')
        if 'index k out of range' not in str(error) or not queries or not wanted:
            return
        head = getattr(self.model, 'bbox_head', None)
        by_class = getattr(getattr(head, 'loss_cls', None), 'use_sigmoid', False)
        scores = queries * (getattr(head, 'num_classes', 1) if by_class else 1)
        if scores < wanted:
            yield (
                f'model.num_queries={queries} have {scores} scores, of which model.test_cfg.max_per_img={wanted} '
                f'cannot be detections: set it to {scores} or fewer'
            )

    def misfits(self, cfg: Mapping[str, Any]) -> Iterator[str]:
        """The first part that is built for other maps than it is given.

        Args:
            cfg: of the model.
        """
        giver = ''
        for taker in ('backbone', 'neck', 'rpn_head', 'bbox_head'):
            channels = [shape[1] for shape in self.given.get(giver, ())]
            built = self._in_channels(taker, cfg.get(taker) or {})
            wanted = [built] * len(channels) if isinstance(built, int) else built
            if channels and wanted is not None and list(wanted) != channels:
                yield (
                    f'model.{giver} gives {len(channels)} maps of {", ".join(map(str, channels))} channels, and '
                    f'model.{taker} is built for in_channels={built}: make one fit the other'
                )
                return
            giver = taker if taker in self.given else giver

    def failed_in(self, error: Exception) -> Iterator[str]:
        """The innermost module that an exception has gone through, and the shapes it was given."""
        names = {id(module): name for name, module in self.model.named_modules()}
        for call in reversed(calls(error)):
            name = names.get(id(call.owner))
            if name and call.function == 'forward':
                given = [str(tuple(x.shape)) for x in call.arguments.values() if isinstance(x, Tensor)]
                yield f'it was model.{name}, a {type(call.owner).__name__}' + (
                    f', given {", ".join(given)}' if given else ''
                )
                return

    def _num_tokens(self) -> int:
        return sum(height * width for *_, height, width in self.given.get('neck', ()))

    def _note(self, name: str, maps: Any) -> None:
        maps = maps if isinstance(maps, (list, tuple)) else [maps]
        self.given[name] = [tuple(feature_map.shape) for feature_map in maps if isinstance(feature_map, Tensor)]

    def _in_channels(self, name: str, cfg: Mapping[str, Any]) -> Any:
        """As configured, or the class's default; None where neither tells."""
        if 'in_channels' in cfg:
            return cfg['in_channels']
        module = getattr(self.model, name, None)
        parameter = inspect.signature(type(module)).parameters.get('in_channels') if module is not None else None
        return None if parameter is None or parameter.default is parameter.empty else parameter.default


def check_matching_costs(model: nn.Module, cfg: Mapping[str, Any]) -> None:
    """Refuse a matching by softmax scores for a model that learns sigmoid scores: it would train, and badly.

    Args:
        cfg: of the model.

    Raises:
        InputError: one of this package's losses in a head of mmdet's goes with the costs of a softmax.
    """
    loss = getattr(getattr(model, 'bbox_head', None), 'loss_cls', None)
    if not isinstance(loss, (IoUVarifocalLoss, MatchabilityAwareLoss)):
        return
    for key, entry in entries(cfg.get('train_cfg') or {}, 'model.train_cfg'):
        if type_name(entry) == 'ClassificationCost':
            raise InputError(
                f'{key} is a ClassificationCost, which compares by a softmax, but model.bbox_head.loss_cls is '
                f"{type(loss).__name__}, which scores each class by a sigmoid: name dict(type='FocalLossCost', "
                'weight=2.0) there'
            )


def missing_meta(error: Exception, meta: Mapping[str, Any], section: str) -> Iterator[str]:
    """Where what a pipeline should tell of an image comes from, if that is what an exception speaks of.

    Args:
        meta: what it does tell.
        section: of the config that has the pipeline.
    """
    lines = [frame.line or '' for frame in traceback.extract_tb(error.__traceback__)[-1:]]
    text = ' '.join([str(error), *lines])
    for name, remedy in _REMEDIES.items():
        if name not in meta and re.search(rf"'{name}'|\.{name}\b", text):
            yield f'the images of {section} come without {name}: {remedy}'


def missing_truth(instances: InstanceData) -> Iterator[str]:
    """What an image to train on lacks, whatever the exception."""
    missing = [name for name in ('bboxes', 'labels') if name not in instances]
    if missing:
        yield (
            f'the images of train_dataloader come without {" and ".join(missing)}: its pipeline needs '
            "dict(type='LoadAnnotations', with_bbox=True)"
        )


def predicted(predictions: Sequence[Any]) -> Iterator[str]:
    """What a model tells of its detections."""
    instances = getattr(predictions[0], 'pred_instances', None) if predictions else None
    if isinstance(instances, InstanceData):
        yield f'the model predicts {", ".join(sorted(instances.keys()))}'
