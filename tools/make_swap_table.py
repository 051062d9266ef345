"""Write docs/swaps.md, the table of which part runs in which detector, from tests/cells.py. For a checkout."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / 'tests'))

from cells import CELLS, FURTHER, OWN, PARTS, WHOLE_HEAD, Cell  # noqa: E402

TEXT = """# Which part runs in which detector

Words link to the config that makes the swap, where there is one; `tests/test_cells.py` builds every one of them, trains
it for three steps, predicts, saves and loads. None was trained to an AP figure for this table. *own*: the part is the
host's own. *swapped*: the part in place of the host's own. *whole head*: `RTDETRHead` in place of the host's head;
selector, decoder, loss and denoising are its parts, named under `model.bbox_head`: `decoder=dict(type='DABDecoder')`,
`criterion=dict(loss_cls=dict(type='MatchabilityAwareLoss'))`. -: the pair makes no sense.

`iouquery train NAME --data my-set/ --weights none --epochs 12 --size 320` trains one on images of yours, `NAME` being
the config's up to `_8xb2` (or `_16xb2`, `_8xb32`). Stages of augmentation take 3 epochs (copy-blend) or 4 (mosaic and
mixup) at least. Of small images or few classes, mmdet's detectors cannot select as many
queries as on COCO, nor give as many detections: the refusal says which numbers they can
(`--cfg-options model.num_queries=100 model.test_cfg.max_per_img=100`).

<!-- made from tests/cells.py by tools/make_swap_table.py: change it there -->

"""


FURTHER_TEXT = """
## Further parts

These go into any detector of their kind; there are configs for some, held to the same.

"""


def page(cells: list[Cell], further: list[Cell]) -> str:
    """Markdown: a table of every pair, one of further parts, and the notes of both."""
    notes: list[str] = []
    tables = TEXT + table(cells, notes) + FURTHER_TEXT + further_table(further, notes)
    footnotes = [f'[^{number}]: {note}.\n' for number, note in enumerate(notes, 1)]
    return '\n'.join([tables, ''.join(footnotes)])


def table(cells: list[Cell], notes: list[str]) -> str:
    """Of every pair of host and part."""
    by_place = {(cell.host, cell.part): cell for cell in cells}
    rows = [['host', *PARTS], ['---'] * (1 + len(PARTS))]
    for host in dict.fromkeys(cell.host for cell in cells):
        rows.append([host, *(entry(by_place[host, part], notes) for part in PARTS)])
    return markdown(rows)


def further_table(cells: list[Cell], notes: list[str]) -> str:
    """Of parts with the hosts that there are configs for."""
    rows = [['part', 'hosts'], ['---', '---']]
    for part in dict.fromkeys(cell.part for cell in cells):
        rows.append([part, ', '.join(entry(cell, notes, cell.host) for cell in cells if cell.part == part)])
    return markdown(rows)


def markdown(rows: list[list[str]]) -> str:
    """A table."""
    return ''.join('| ' + ' | '.join(row) + ' |\n' for row in rows)


def entry(cell: Cell, notes: list[str], swapped: str = 'swapped') -> str:
    """One place of a table, ``swapped`` its word for a swap; a note that is new goes to ``notes``."""
    word = cell.note if cell.note in (OWN, WHOLE_HEAD) else swapped if cell.config else '-'
    text = f'[{word}](../configs/{cell.config})' if cell.config else word
    if cell.note in ('', OWN, WHOLE_HEAD):
        return text
    if cell.note not in notes:
        notes.append(cell.note)
    return f'{text}[^{notes.index(cell.note) + 1}]'


def main(arguments: list[str] | None = None) -> int:
    """Run; returns the exit status, 1 when ``--check`` finds another text on disk."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--check', action='store_true', help='write nothing; fail when the file would change')
    parser.add_argument('--output', type=Path, default=ROOT / 'docs' / 'swaps.md')
    args = parser.parse_args(arguments)
    text = page(CELLS, FURTHER)
    if args.check:
        current = args.output.is_file() and args.output.read_text(encoding='utf-8') == text
        print(f'{args.output} is {"as tests/cells.py says" if current else "not: run tools/make_swap_table.py"}')
        return 0 if current else 1
    args.output.write_text(text, encoding='utf-8')
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
