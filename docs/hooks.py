"""What mkdocs calls while it builds the site; ``mkdocs.yml`` names this file."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the package of this checkout, whatever is installed
sys.path.insert(0, str(Path(__file__).resolve().parent))
os.environ['MMDET_IOUQUERY_REGISTER'] = 'later'  # commands and configs are read without torch

from site_pages import commands, configs, links, loaded, prose, reference
from troubleshooting import troubleshooting

FIGURES = ('changelog.md', 'speed.md', 'ablations.md', 'mmdet-tests.md')
"""Pages that are found after others and the reference: they have many words of everything."""


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that lie elsewhere, and those that are made."""
    if wrong := reference.mistakes():
        raise PluginError('the reference is not whole:\n' + '\n'.join(wrong))
    for file in [*files]:
        if file.src_uri.startswith('assets/javascripts/lunr/'):  # the search of other languages
            files.remove(file)
    for path, page in links.PAGES_ELSEWHERE.items():
        files.append(File.generated(config, page, abs_src_path=str(links.ROOT / path)))
    made = {**reference.pages(), **configs.pages(), **commands.pages()}
    made['troubleshooting.md'] = prose.prose(troubleshooting(), 'docs/troubleshooting.md', 'troubleshooting.md')
    for page, text in made.items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Give a page that is written by hand its links."""
    if page.file.abs_src_path is None:
        return markdown
    if page.is_homepage:
        page.meta['hide'] = ['navigation']
    page.meta.setdefault('search', {'boost': 0.5 if page.file.src_uri in FIGURES else 2})
    path = Path(page.file.abs_src_path).resolve().relative_to(links.ROOT).as_posix()
    try:
        return prose.prose(markdown, path, page.file.src_uri)
    except links.DeadLinkError as error:
        raise PluginError(str(error)) from error


def on_page_content(html: str, page: Any, **_: Any) -> str:
    """Tell short code apart, and see to it that lists are lists: GitHub is content with less than Python-Markdown."""
    if lost := re.search(r'<p>(?:(?!</p>).)*?\n((?:- |\d+\. )[^\n]*)', html, re.DOTALL):
        raise PluginError(
            f'{page.file.src_uri}: {lost[1]!r} became text; a list needs an empty line before it, and what goes on '
            'with an entry four blanks'
        )
    return re.sub(r'<code>(?=[^<>]{1,28}</code>)', '<code class="short">', html)


def on_post_build(config: Any) -> None:
    """See to it that a browser loads nothing from elsewhere."""
    if wrong := loaded.from_elsewhere(Path(config.site_dir)):
        raise PluginError('pages load from elsewhere:\n' + '\n'.join(wrong))
