"""What a browser loads for the pages of a site: files of the site alone."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

IN_SCRIPTS = {
    'https://unpkg.com/mermaid@11/dist/mermaid.min.js': r'class="mermaid"',
    'https://api.github.com/': r'data-md-component="source"',
    'https://bit.ly/2s3ChXG': r'(?!)',  # in the text of a warning
    'https://unpkg.com/resize-observer-polyfill': r'(?!)',  # for browsers that are older than the theme
}
"""Addresses in the theme's scripts, and what in a page makes a browser ask for them."""


class _Loads(HTMLParser):
    """Gathers the addresses that elements load by themselves; a link that a reader follows is none."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == 'link' and given.get('rel') not in ('canonical', 'prev', 'next'):
            self.found.append(given.get('href') or '')
        elif tag not in ('a', 'area'):
            self.found += [
                value or '' for name, value in attrs if name in ('src', 'srcset', 'data', 'poster', 'action')
            ]
        self.found += re.findall(r'url\(([^)]*)\)', given.get('style') or '')


def from_elsewhere(site: Path) -> list[str]:
    """What the pages, styles and scripts in a folder load from other hosts, each with who does so."""
    wrong = []
    pages = {path: path.read_text(encoding='utf-8') for path in sorted(site.rglob('*.html'))}
    for path, text in pages.items():
        parser = _Loads()
        parser.feed(text)
        wrong += [f'{path.relative_to(site)}: {address}' for address in parser.found if _is_elsewhere(address)]
    for path in sorted(site.rglob('*.css')):
        addresses = re.findall(r'(?:url\(|@import )["\']?([^"\')]+)', path.read_text(encoding='utf-8'))
        wrong += [f'{path.relative_to(site)}: {address}' for address in addresses if _is_elsewhere(address)]
    for path in sorted(site.rglob('*.js')):
        script = re.sub(r'(?s:/\*.*?\*/)|^\s*//.*$', '', path.read_text(encoding='utf-8'), flags=re.MULTILINE)
        for address in re.findall(r'https?://(?!www\.w3\.org/)[\w.-]+[^\s"\'`)$]*', script):
            triggers = [trigger for start, trigger in IN_SCRIPTS.items() if address.startswith(start)]
            if not triggers or any(re.search(triggers[0], text) for text in pages.values()):
                wrong.append(f'{path.relative_to(site)}: {address}')
    return wrong


def _is_elsewhere(address: str) -> bool:
    return re.match(r'(?:https?:)?//', address.strip()) is not None
