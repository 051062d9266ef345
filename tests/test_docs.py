"""What the pages name is there, and the site has all of them; `make docs` holds the rest, on the built site."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from site_pages import links, loaded

from mmdet_iouquery.version import REPOSITORY, __version__

ROOT = links.ROOT
PAGES = links.pages()
OF_MMDET = ('docs/mmdet-tests.md',)  # names the test files of mmdet
TEST_FILES = [path.relative_to(ROOT).as_posix() for path in (ROOT / 'tests').rglob('test_*.py')]


def test_links_lead_to_files_and_headings() -> None:
    assert links.dead_links() == []


@pytest.mark.parametrize('page', PAGES)
def test_files_of_tests_exist(page: str) -> None:
    text = (ROOT / page).read_text(encoding='utf-8')
    for name in () if page in OF_MMDET else re.findall(r'[\w/]*test_\w+\.py', text):
        assert any(f'/{path}'.endswith(f'/{name}') for path in TEST_FILES), f'{page} names {name}'


def test_the_repository_has_one_address() -> None:
    """What GitHub and the citation's readers parse can compute nothing: the address is repeated there."""
    files = [*ROOT.glob('*.md'), ROOT / 'CITATION.cff', *(ROOT / '.github').rglob('*.*')]
    texts = [path.read_text(encoding='utf-8') for path in files if path.is_file()]
    actual = {link for text in texts for link in re.findall(r'https?://[\w.]+/[\w-]+/mmdet_iouquery\b', text)}
    assert actual == {REPOSITORY}


def test_a_bug_report_asks_for_what_the_doctor_says() -> None:
    text = (ROOT / '.github' / 'ISSUE_TEMPLATE' / 'bug.yml').read_text(encoding='utf-8')
    (asked,) = [entry for entry in re.split(r'(?m)^  - type: ', text) if '`iouquery doctor` prints' in entry]
    assert 'required: true' in asked


def test_the_changelog_has_the_version_and_an_unreleased_part_on_top() -> None:
    text = (ROOT / 'CHANGELOG.md').read_text(encoding='utf-8')
    first, *released = re.findall(r'(?m)^## (.*)$', text)
    versions = [re.fullmatch(r'(\d+\.\d+\.\d+) - \d{4}-\d\d-\d\d', line) for line in released]
    assert first == 'Unreleased' and all(versions)
    assert __version__ in [version[1] for version in versions[:2] if version]


def test_a_page_that_names_nothing_would_be_seen() -> None:
    texts = [(ROOT / page).read_text(encoding='utf-8') for page in PAGES]
    assert sum(len(re.findall(r'[\w/]*test_\w+\.py', text)) for text in texts) > 40
    assert sum(len([*links.targets(text)]) for text in texts) > 200


def test_what_is_wrong_with_links_is_told(tmp_path: Path) -> None:
    (tmp_path / 'docs').mkdir()
    (tmp_path / 'README.md').write_text('# One `two`, three\n\n[a](docs/a.md#b-c) ![b](b.png) [c](#one-two-three)\n')
    page = tmp_path / 'docs' / 'a.md'
    page.write_text(
        '# A\n\n## B: [c](../README.md)\n\n[a](../README.md#one-two-three) [b](a.md#c) [c](no.md) <img src="no.png">\n'
        f'[d]({links.REPOSITORY}/blob/main/README.md#one) [e]({links.REPOSITORY}/tree/main/no) [f](https://x.org/no)\n'
        '`[g](no)` ``[h](`no)``\n\n    ```\n    [i](no)\n    ```\n\n[^1]: no\n[j]: no#x\n'
    )
    assert links.dead_links(tmp_path) == [
        'README.md links to b.png, which is not there',
        'docs/a.md links to a.md#c, and docs/a.md has no such heading',
        'docs/a.md links to no.md, which is not there',
        'docs/a.md links to no.png, which is not there',
        f'docs/a.md links to {links.REPOSITORY}/blob/main/README.md#one, and README.md has no such heading',
        f'docs/a.md links to {links.REPOSITORY}/tree/main/no, which is not there',
        'docs/a.md links to no#x, which is not there',
    ]


def test_a_link_leads_to_the_page_that_the_site_makes_of_a_file() -> None:
    def lead(target: str) -> str:
        return links.lead(target, 'docs/swaps.md', 'swaps.md')

    assert lead('../README.md#models') == 'index.md#models'
    assert lead('quickstart.jpg') == 'quickstart.jpg'
    assert lead('../configs/dfine') == lead('../configs/dfine/README.md') == 'reference/configs/dfine.md'
    assert lead('../configs/_base_/default_runtime.py') == 'reference/configs/_base_.md#default_runtime'
    assert lead(f'{links.REPOSITORY}/blob/main/docs/data.md#x') == 'data.md#x'
    assert lead('troubleshooting.py') == 'troubleshooting.md'
    assert lead('troubleshooting.yml') == f'{links.REPOSITORY}/blob/main/docs/troubleshooting.yml'
    assert lead('../setup.py') == f'{links.REPOSITORY}/blob/main/setup.py'
    assert lead('../tests') == f'{links.REPOSITORY}/tree/main/tests'
    assert lead('https://x.org/a#b') == 'https://x.org/a#b'
    assert links.lead('../dfine', 'configs/deim/README.md', 'reference/configs/deim.md') == 'dfine.md'
    with pytest.raises(links.DeadLinkError, match=r'docs/swaps.md links to \.\./\.\./x, which is not there'):
        lead('../../x')


def site_config() -> dict[str, Any]:
    class Loader(yaml.SafeLoader):
        """Takes what a tag names for nothing."""

    Loader.add_multi_constructor('tag:yaml.org,2002:python/', lambda *_: None)
    return yaml.load((ROOT / 'mkdocs.yml').read_text(encoding='utf-8'), Loader)


def test_every_page_is_in_the_navigation() -> None:
    def pages_in(entry: Any) -> Iterator[str]:
        if isinstance(entry, str):
            yield entry
        else:
            for below in entry.values() if isinstance(entry, dict) else entry:
                yield from pages_in(below)

    config = site_config()
    listed = [*pages_in(config['nav'])]
    assert len(listed) == len({*listed})
    # of what is made for `reference` the build itself says which are missing
    expected = {links.on_site(page) for page in PAGES} | {'troubleshooting.md'}
    assert {page for page in listed if '/' not in page} | {page for page in listed if page in expected} == expected
    assert config['repo_url'] == links.REPOSITORY


def test_what_comes_from_elsewhere_is_told(tmp_path: Path) -> None:
    (tmp_path / 'a.html').write_text(
        '<link rel="stylesheet" href="//x.org/a.css"><link rel="canonical" href="https://x.org/a">'
        '<a href="https://x.org"><img src="a.png" srcset="https://x.org/a.png"></a><script src="https://x.org/a.js">'
        '</script><p style="background: url(https://x.org/b.png)"><svg xmlns="http://www.w3.org/2000/svg"></svg>'
        '<pre class="mermaid">a</pre>'
    )
    (tmp_path / 'a.css').write_text(
        '@import "https://x.org/b.css"; a { src: url(data:x) } b { src: url(https://x.org/c) }'
    )
    (tmp_path / 'a.js').write_text(
        '/* https://x.org/comment\n*/\n// https://x.org/line\nfetch("https://x.org/d");'
        'load("https://unpkg.com/mermaid@11/dist/mermaid.min.js"); stars("https://api.github.com/repos")'
    )
    assert loaded.from_elsewhere(tmp_path) == [
        'a.html: //x.org/a.css',
        'a.html: https://x.org/a.png',
        'a.html: https://x.org/a.js',
        'a.html: https://x.org/b.png',
        'a.css: https://x.org/b.css',
        'a.css: https://x.org/c',
        'a.js: https://x.org/d',
        'a.js: https://unpkg.com/mermaid@11/dist/mermaid.min.js',
    ]
