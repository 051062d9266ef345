"""Where the links of pages lead: in the repository, where a reader on GitHub is, and on the site.

Pages link to files of the repository, ``../configs/dfine/README.md``, as GitHub expects it. On the site such a link
leads to the page made of that file, where there is one, or else to the file in the repository.
"""

from __future__ import annotations

import posixpath
import re
import runpy
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REPOSITORY: str = runpy.run_path(str(ROOT / 'mmdet_iouquery' / 'version.py'), run_name='version')['REPOSITORY']
PAGES_ELSEWHERE = {'README.md': 'index.md', 'CHANGELOG.md': 'changelog.md', 'CONTRIBUTING.md': 'contributing.md'}
"""Pages of the site that lie outside ``docs``, by their paths in the repository."""

_CODE = r'(?P<code>^[ ]*(?P<fence>```+|~~~+).*?^[ ]*(?P=fence)|(?P<ticks>`+)(?!`).*?(?<!`)(?P=ticks)(?!`))'
_LINK = re.compile(
    _CODE + r'|(?P<before>\]\(|^\[[^\]^]+\]: |\b(?:href|src)=")(?P<target>[^\s)"]+)', re.MULTILINE | re.DOTALL
)
_SPAN = re.compile(r'^#[^\n]*$|\[(?:[^\[\]]|`[^`]*`)*\](?:\([^)]*\)|\[[^\]]*\])|' + _CODE, re.MULTILINE | re.DOTALL)
_HEADING = re.compile(_CODE + r'|^#{1,6} (?P<title>.+?)#*$', re.MULTILINE | re.DOTALL)
_OWN = re.compile(re.escape(REPOSITORY) + r'/(?:blob|tree|raw)/main/(.+)')


class DeadLinkError(Exception):
    """A link leads to nothing."""


def file_link(path: str, line: int | None = None) -> str:
    """The address of a file or folder in the repository."""
    kind = 'tree' if (ROOT / path).is_dir() else 'blob'
    return f'{REPOSITORY}/{kind}/main/{path}' + (f'#L{line}' if line else '')


def targets(text: str) -> Iterator[str]:
    """What the links and images of a page's Markdown lead to."""
    return (match['target'] for match in _LINK.finditer(text) if match['target'])


def replace_targets(text: str, change: Callable[[str], str]) -> str:
    """The page with other targets."""
    return _LINK.sub(lambda match: match['before'] + change(match['target']) if match['target'] else match[0], text)


def replace_code_spans(text: str, change: Callable[[str], str]) -> str:
    """The page with other code spans, in the text outside links and headings."""

    def changed(match: re.Match[str]) -> str:
        return change(match[0]) if match['ticks'] else match[0]

    return _SPAN.sub(changed, text)


def anchors(text: str) -> set[str]:
    """What a link to the page may name after ``#``: the headings, as GitHub and the site spell them."""
    titles = [match['title'] for match in _HEADING.finditer(text) if match['title']]
    return {slug(title) for title in titles}


def slug(title: str) -> str:
    """The anchor of a heading."""
    title = re.sub(r'\[([^\]]*)\]\([^)]*\)', r'\1', title.replace('`', ''))
    return re.sub(r'[^\w\- ]', '', title.strip().lower()).replace(' ', '-')


def in_repository(target: str, page: str, root: Path = ROOT) -> tuple[str, str] | None:
    """Path in the repository and anchor that a link of ``page``, a path too, leads to; None: out of the repository.

    Raises:
        DeadLinkError: there is no such file.
    """
    own = _OWN.fullmatch(target)
    if own is None and re.match(r'[a-z]+:', target):
        return None
    path, _, anchor = (own[1] if own else target).partition('#')
    if not own:
        path = posixpath.join(posixpath.dirname(page), path) if path else page
    path = posixpath.normpath(path)
    if path.startswith('..') or not (root / path).exists():
        raise DeadLinkError(f'{page} links to {target}, which is not there')
    return path, anchor


def on_site(path: str) -> str | None:
    """The page, or file, of the site that is made of a file of the repository; None: there is none."""
    if path in PAGES_ELSEWHERE:
        return PAGES_ELSEWHERE[path]
    if match := re.fullmatch(r'configs/((?!_)\w+)(?:/README\.md)?', path):
        return f'reference/configs/{match[1]}.md'
    if match := re.fullmatch(r'configs/(\w+)/(?:\w+/)?([^/]+)\.py', path):
        return f'reference/configs/{match[1]}.md#{slug(match[2])}'
    if path == 'docs/troubleshooting.py':
        return 'troubleshooting.md'
    if path.startswith('docs/') and not path.endswith(('.py', '.yml')) and (ROOT / path).is_file():
        return path[len('docs/') :]
    return None


def lead(target: str, page: str, site_page: str) -> str:
    """Where a link leads on the site.

    Args:
        target: what the link says.
        page: the path, in the repository, of the file that says it.
        site_page: the path that it has on the site.

    Raises:
        DeadLinkError: there is no such file.
    """
    file = in_repository(target, page)
    if file is None or target.startswith('#'):
        return target
    path, anchor = file
    made = on_site(path)
    if made is None:
        return file_link(path) + (anchor and f'#{anchor}')
    made, _, own_anchor = made.partition('#')
    anchor = anchor or own_anchor
    return posixpath.relpath(made, posixpath.dirname(site_page)) + (anchor and f'#{anchor}')


def pages(root: Path = ROOT) -> list[str]:
    """The Markdown files that are pages of the site, by their paths in the repository."""
    paths = [*(root / 'docs').rglob('*.md'), *(root / 'configs').glob('*/README.md')]
    paths += [root / name for name in PAGES_ELSEWHERE]
    return sorted(path.relative_to(root).as_posix() for path in paths if path.is_file())


def dead_links(root: Path = ROOT) -> list[str]:
    """What is wrong with the links of all pages, between them and to files; other sites are not asked."""
    texts = {page: (root / page).read_text(encoding='utf-8') for page in pages(root)}
    known = {page: anchors(text) for page, text in texts.items()}
    wrong = []
    for page, text in texts.items():
        for target in targets(text):
            try:
                file = in_repository(target, page, root)
            except DeadLinkError as error:
                wrong.append(str(error))
                continue
            path, anchor = file or ('', '')
            if anchor and path in known and anchor not in known[path]:
                wrong.append(f'{page} links to {target}, and {path} has no such heading')
    return wrong
