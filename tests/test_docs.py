"""What the pages name is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mmdet_iouquery.version import REPOSITORY, __version__

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    *sorted(ROOT.glob('*.md')),
    *sorted((ROOT / 'docs').glob('*.md')),
    ROOT / '.github' / 'pull_request_template.md',
]
OF_MMDET = ('mmdet-tests.md',)  # names the test files of mmdet
TEST_FILES = [path.relative_to(ROOT).as_posix() for path in (ROOT / 'tests').rglob('test_*.py')]


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_files_of_tests_and_links_exist(page: Path) -> None:
    text = page.read_text(encoding='utf-8')
    for name in () if page.name in OF_MMDET else re.findall(r'[\w/]*test_\w+\.py', text):
        assert any(f'/{path}'.endswith(f'/{name}') for path in TEST_FILES), f'{page.name} names {name}'
    for link in re.findall(r'\]\(([^)#:]+)(?:#[\w-]*)?\)', text):
        assert (page.parent / link).exists(), f'{page.name} links to {link}'


def test_the_repository_has_one_address() -> None:
    """What GitHub and the citation's readers parse can compute nothing: the address is repeated there."""
    files = [*ROOT.glob('*.md'), ROOT / 'CITATION.cff', *(ROOT / '.github').rglob('*.*')]
    texts = [path.read_text(encoding='utf-8') for path in files if path.is_file()]
    found = {link for text in texts for link in re.findall(r'https?://[\w.]+/[\w-]+/mmdet_iouquery\b', text)}
    assert found == {REPOSITORY}


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
    named = [name for page in PAGES for name in re.findall(r'[\w/]*test_\w+\.py', page.read_text(encoding='utf-8'))]
    assert len(named) > 40
