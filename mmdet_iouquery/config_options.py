"""Overrides of a config on a command line: ``--cfg-options KEY=VALUE ...``."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config, DictAction

from .errors import InputError


class KeyValue(DictAction):
    """mmengine's own action, with a sentence for a word that has no ``=``."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: Any, values: Any, option: Any = None) -> None:
        """Read ``values``; leaves with status 2 where one is no pair."""
        for word in values:
            if '=' not in word:
                parser.error(f'{option}: {word!r} is no KEY=VALUE, such as train_dataloader.batch_size=4')
        super().__call__(parser, namespace, values, option)


def merge_options(cfg: Config, options: Mapping[str, Any] | None) -> None:
    """Put overrides into a config.

    Raises:
        InputError: a key leads through something that has no such entry.
    """
    for key, value in (options or {}).items():
        try:
            cfg.merge_from_dict({key: value})
        except (TypeError, KeyError, IndexError, AttributeError, ValueError) as error:
            hint = '; an entry of a list goes by its number, such as val_evaluator.0.ann_file'
            raise InputError(f'--cfg-options {key}={value}: the config takes no such entry ({error}){hint}') from error
