"""Text files are UTF-8 whatever the locale is, and what others read by the locale is refused where that would fail."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NAME = 'Schraube ü'
CHECK = """
import locale, sys
import mmdet_iouquery
from mmdet_iouquery.datasets import check_coco
from mmdet_iouquery.errors import InputError
print(locale.getpreferredencoding(False))
for path in sys.argv[1:]:
    try:
        print(list(check_coco(path, None, ('Schraube \\xfc',)).class_counts.values()))
    except InputError as error:
        print('refused:', ascii(str(error)))
"""


def text_calls(path: Path) -> Iterator[tuple[str, bool]]:
    """Calls that read or write text in a file of ours, by place, and whether each names its encoding."""
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, 'id', '')
        keywords = {keyword.arg: keyword.value for keyword in node.keywords}
        modes = [arg.value for arg in [*node.args[1:2], keywords.get('mode')] if isinstance(arg, ast.Constant)]
        of_path = isinstance(node.func, ast.Attribute) and name in ('read_text', 'write_text')
        opened = name == 'open' and isinstance(node.func, ast.Name) and not any('b' in str(mode) for mode in modes)
        piped = 'text' in keywords or 'universal_newlines' in keywords
        if of_path or opened or piped:
            yield (
                f'{path.relative_to(ROOT)}:{node.lineno}',
                'encoding' in keywords or (name == 'write_text' and of_path and len(node.args) > 1),
            )


def test_every_text_file_of_the_package_is_opened_with_an_encoding() -> None:
    folders = ('mmdet_iouquery', 'iouquery_runtime', 'tools', 'configs')
    files = [path for folder in folders for path in (ROOT / folder).rglob('*.py')]
    calls = [call for path in files for call in text_calls(path)]
    assert len(calls) > 20
    assert [location for location, named in calls if not named] == []


@pytest.mark.skipif(sys.platform != 'linux', reason='elsewhere the C locale is UTF-8 as well')
def test_a_locale_in_which_mmdet_would_not_read_a_name_is_refused(tmp_path: Path) -> None:
    """pycocotools opens its file without naming an encoding."""
    content = dict(
        images=[dict(id=1, file_name='1.png', width=64, height=48)],
        annotations=[dict(id=1, image_id=1, category_id=1, bbox=[1, 2, 30, 20], area=600, iscrowd=0)],
        categories=[dict(id=1, name=NAME)],
    )
    letters, escapes = tmp_path / 'letters.json', tmp_path / 'escapes.json'
    for path in (letters, escapes):
        path.write_text(json.dumps(content, ensure_ascii=path == escapes), encoding='utf-8')
    plain = dict(LC_ALL='C', PYTHONUTF8='0', PYTHONCOERCECLOCALE='0', PYTHONWARNINGS='ignore', PYTHONPATH=str(ROOT))
    command = [sys.executable, '-c', CHECK, str(letters), str(escapes)]
    done = subprocess.run(command, capture_output=True, encoding='utf-8', check=True, env={**os.environ, **plain})
    encoding, first, second = done.stdout.splitlines()[-3:]
    assert encoding == 'ANSI_X3.4-1968' and second == '[1]'
    assert first.startswith('refused: ') and 'letters.json has letters beyond ASCII' in first
    assert 'set PYTHONUTF8=1' in first
