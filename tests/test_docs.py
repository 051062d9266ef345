"""What the pages name is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *sorted((ROOT / 'docs').glob('*.md'))]
OF_MMDET = ('mmdet-tests.md',)  # names the test files of mmdet
TEST_FILES = [path.relative_to(ROOT).as_posix() for path in (ROOT / 'tests').rglob('test_*.py')]


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_files_of_tests_and_links_exist(page: Path) -> None:
    text = page.read_text(encoding='utf-8')
    for name in () if page.name in OF_MMDET else re.findall(r'[\w/]*test_\w+\.py', text):
        assert any(f'/{path}'.endswith(f'/{name}') for path in TEST_FILES), f'{page.name} names {name}'
    prose = re.sub(r'^ *```.*?^ *```$', '', text, flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r'\]\(([^)#:]+)(?:#[\w-]*)?\)', prose):
        assert (page.parent / link).exists(), f'{page.name} links to {link}'


def test_a_page_that_names_nothing_would_be_seen() -> None:
    named = [name for page in PAGES for name in re.findall(r'[\w/]*test_\w+\.py', page.read_text(encoding='utf-8'))]
    assert len(named) > 40
