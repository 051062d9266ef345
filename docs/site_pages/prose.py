"""Pages that are written by hand, as the site has them."""

from __future__ import annotations

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
    text = links.replace_targets(text, lambda target: links.lead(target, page, site_page))
    return links.replace_code_spans(text, _with_link)


def _with_link(span: str) -> str:
    path = named().get(span.strip('`'))
    return f'[{span}][{path}]' if path else span
