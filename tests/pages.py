"""The code blocks of the pages: which are run, and how.

A block is run unless the line before it is ``<!-- not run: REASON -->``.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from site_pages import links

from mmdet_iouquery.apps.commands import COMMANDS

ROOT = links.ROOT
PAGES = [ROOT / page for page in links.pages()]

SCRIPTS = {f'tools/{entry.tool}': name for name, entry in COMMANDS.items() if entry.tool}
"""The command that each script is."""
_FEW = (
    *('--epochs', '1', '--size', '64', '--batch', '4', '--cfg-options'),
    *(f'{split}_dataloader.num_workers=0' for split in ('train', 'val')),
    *(f'{split}_dataloader.persistent_workers=False' for split in ('train', 'val')),
    *('model.bbox_head.query_selector.num_queries=30', 'model.bbox_head.denoising.num_denoising=6'),
)
_WORDS = {'CONFIG': 'config.py', 'CHECKPOINT': 'checkpoint.pth', 'FOLDER': 'shared'}
_BLOCK = re.compile(r'^(?:<!-- not run: ([^\n]+) -->\n)?```(\w*)\n(.*?)^```$', re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A block of a page."""

    language: str
    text: str
    not_run: str | None
    """The reason; None: it is run."""


def blocks(page: str | Path) -> list[Block]:
    """The blocks of a page, a file or its name in ``docs``."""
    path = page if isinstance(page, Path) else ROOT / 'docs' / page
    return [
        Block(language, text, reason or None)
        for reason, language, text in _BLOCK.findall(path.read_text(encoding='utf-8'))
    ]


def lines(block: Block) -> list[list[str]]:
    """The words of each command of a shell block, without comments and without what its output goes to."""
    assert block.language == 'bash'
    command_lines = []
    for line in block.text.replace('\\\n', ' ').splitlines():
        words = shlex.split(line, comments=True)
        if words:
            command_lines.append(words[: words.index('>')] if '>' in words else words)
    return command_lines


def command(words: list[str]) -> list[str] | None:
    """The words after ``iouquery`` that a line means, typed so or as a script; None: it is of another program."""
    if words[0] == 'iouquery':
        return words[1:]
    if words[:2] == ['python', '-m'] and words[2].startswith('mmdet_iouquery.'):
        return [words[2].partition('.')[2], *words[3:]]
    if words[0] == 'python' and words[1] in SCRIPTS:
        return [SCRIPTS[words[1]], *words[2:]]
    return None


def quick(words: Sequence[str]) -> list[str]:
    """The same call with a training of seconds, fewer drawings, and files for the words in capitals."""
    words = [_WORDS.get(word, word.replace('epoch_50', 'epoch_1')) for word in words]
    if words[0] == 'train' and '--data' in words:
        pairs = zip(['', *words], words)
        words = [word for before, word in pairs if not {'--batch', '--epochs'} & {before, word}]
        return [*words, *_FEW]
    if words[0] == 'analyze':
        return [*words, '--images', '2', '--pictures', '1']
    return words
