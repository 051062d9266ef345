"""A page of charts that is one file: images are inside it."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

from .chart import Chart


class Table(NamedTuple):
    """Numbers in rows."""

    title: str
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


class Note(NamedTuple):
    """A sentence in place of a chart that there is none of."""

    text: str


class Section(NamedTuple):
    """A heading and what stands under it."""

    title: str
    parts: Sequence[Chart | Table | Note]


STYLE = """
:root { color-scheme: light dark; --text: #222; --page: #fff; --line: #ccc; --quiet: #555; --note: #f3f3f3; }
@media (prefers-color-scheme: dark) {
  :root { --text: #ddd; --page: #16181b; --line: #444; --quiet: #aaa; --note: #24272b; }
  .wide img { filter: brightness(.85); border-radius: 4px; }
}
body { margin: 0 auto; max-width: 1060px; padding: 0 16px 48px; color: var(--text); background: var(--page);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
h1 { font-size: 1.6em; line-height: 1.25; margin: 1.2em 0 .3em; }
h2 { font-size: 1.3em; margin: 2em 0 .4em; border-top: 1px solid var(--line); padding-top: .8em; }
h3 { font-size: 1.05em; margin: 1.6em 0 .3em; }
nav ul { padding-left: 1.2em; }
p, li { overflow-wrap: anywhere; }
figure { margin: .4em 0 0; }
.wide { overflow-x: auto; }
.wide img { display: block; width: 100%; min-width: 640px; max-width: 1000px; height: auto; }
table { border-collapse: collapse; font-size: .9em; }
th, td { padding: .3em .7em; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th { white-space: normal; vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; white-space: normal; min-width: 9em; }
.files { font-size: .85em; color: var(--quiet); }
.note { background: var(--note); padding: .6em .8em; border-left: 4px solid var(--quiet); }
"""


def page(title: str, intro: Sequence[str], sections: Sequence[Section]) -> str:
    """The HTML of a page: an introduction of some paragraphs, a table of contents, and the sections."""
    contents = ''.join(
        f'<li><a href="#part-{number}">{escape(section.title)}</a></li>' for number, section in enumerate(sections)
    )
    body = ''.join(
        f'<section id="part-{number}"><h2>{escape(section.title)}</h2>{"".join(map(_block, section.parts))}</section>'
        for number, section in enumerate(sections)
    )
    paragraphs = ''.join(f'<p>{escape(text)}</p>' for text in intro)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{escape(title)}</title><style>{STYLE}</style></head><body><h1>{escape(title)}</h1>{paragraphs}'
        f'<nav><ul>{contents}</ul></nav>{body}</body></html>\n'
    )


def table_of(title: str, caption: str, records: Sequence[Mapping[str, Any]]) -> Table:
    """A table of records with the same keys; numbers to four significant digits, None as a dash."""
    columns = [*records[0]] if records else []
    return Table(title, caption, columns, [[_cell(record[column]) for column in columns] for record in records])


def _block(block: Chart | Table | Note) -> str:
    if isinstance(block, Note):
        return f'<p class="note">{escape(block.text)}</p>'
    if isinstance(block, Table):
        head = ''.join(f'<th scope="col">{escape(column)}</th>' for column in block.columns)
        rows = ''.join(f'<tr>{"".join(f"<td>{escape(cell)}</td>" for cell in row)}</tr>' for row in block.rows)
        return (
            f'<h3>{escape(block.title)}</h3><p>{escape(block.caption)}</p><div class="wide" tabindex="0">'
            f'<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
        )
    buffer = io.BytesIO()
    block.figure.savefig(buffer, format='png')
    image = base64.b64encode(buffer.getvalue()).decode('ascii')
    files = ', '.join(f'<a href="{block.name}.{kind}">{kind.upper()}</a>' for kind in ('png', 'svg', 'csv', 'json'))
    return (
        f'<h3>{escape(block.title)}</h3><p>{escape(block.caption)}</p><figure><div class="wide" tabindex="0">'
        f'<img alt="{escape(block.title)}" src="data:image/png;base64,{image}"></div>'
        f'<figcaption class="files">{block.name}: {files}</figcaption></figure>'
    )


def _cell(value: Any) -> str:
    if value is None:
        return '-'
    return f'{value:.4g}' if isinstance(value, float) else str(value)
