"""Pages that are written by hand, as the site has them."""

from __future__ import annotations

import itertools
import posixpath
import re
from collections import Counter
from functools import cache

from . import code, links


@cache
def named() -> dict[str, str]:
    """Names that the reference has an entry for, each with its path; none that may mean several, or is a plain word."""
    entries = code.entries()
    counts = Counter(entry.name for entry in entries)
    return {
        entry.name: entry.path for entry in entries if counts[entry.name] == 1 and (entry.is_class or '_' in entry.name)
    }


def prose(text: str, page: str, site_page: str) -> str:
    """The text with links as the site has them, and with a link where it names what the reference has.

    Args:
        text: Markdown.
        page: the path of its file in the repository.
        site_page: and on the site.

    Raises:
        DeadLinkError: a link leads to nothing.
    """
    text = links.replace_targets(
        with_titles(with_lists(text), page), lambda target: links.lead(target, page, site_page)
    )

    def with_link(span: str) -> str:
        name = span.strip('`')
        if name in named():
            return f'[{span}][{named()[name]}]'
        path = file_named(name)
        return f'[{span}]({links.lead(links.file_link(path), page, site_page)})' if path else span

    return links.replace_code_spans(text, with_link)


def with_titles(text: str, page: str) -> str:
    """The text with a page's title where a link calls it by its file, as ``[scale.md](scale.md)``."""

    def titled(match: re.Match[str]) -> str:
        path = links.ROOT / posixpath.dirname(page) / match['target']
        title = re.search(r'^# (.+)$', path.read_text(encoding='utf-8'), re.MULTILINE) if path.is_file() else None
        return f'[{title[1]}]({match["target"]}{match["anchor"] or ""})' if title else match[0]

    link = r'\[(?:[\w-]+/)*(?P<name>[\w-]+\.md)\]\((?P<target>(?:[\w.-]+/)*(?P=name))(?P<anchor>#[\w-]+)?\)'
    return re.sub(link, titled, text)


def with_lists(text: str) -> str:
    """The page with lists as Python-Markdown reads them, from what GitHub takes for a list.

    An empty line stands before a list, and before an entry that follows one of several paragraphs; what goes on with an
    entry is indented by four. Entries of lists in lists are moved with the entry that they are in.
    """
    lines, result = text.split('\n'), ['']
    needs_space = True  # before an entry, where there is none
    while lines:
        line = lines.pop(0)
        if fence := re.match(r'```+|~~~+', line):
            inside = [*itertools.takewhile(lambda inner: not inner.startswith(fence[0]), lines)]
            result += [line, *inside, *lines[len(inside) : len(inside) + 1]]
            del lines[: len(inside) + 1]
            needs_space = True
        elif re.match(r'[-*] |\d+\. ', line):
            if needs_space and result[-1].strip():
                result.append('')
            below = [*itertools.takewhile(lambda inner: not inner.strip() or inner.startswith('  '), lines)]
            del lines[: len(below)]
            indent = min((len(inner) - len(inner.lstrip()) for inner in below if inner.strip()), default=4)
            result += [line, *(' ' * (4 - indent) + inner if inner.strip() else inner for inner in below)]
            needs_space = '' in below
        else:
            result.append(line)
            needs_space = True
    return '\n'.join(result[1:])


def file_named(name: str) -> str | None:
    """The file that a path means, which may begin below the package or the configs; None: there is none."""
    if not re.fullmatch(r'[\w.-]+(?:/[\w.-]+)+\.\w+', name):
        return None
    paths = [start + name for start in ('', 'mmdet_iouquery/', 'configs/')]
    return next((path for path in paths if (links.ROOT / path).is_file()), None)
