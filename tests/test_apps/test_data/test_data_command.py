"""``tools/data.py``: what it prints, also as JSON, and the endings of bad input."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from form_sets import BOX_LINE, yolo_set

from mmdet_iouquery import REGISTER_VARIABLE
from mmdet_iouquery.apps.data.arguments import parser
from mmdet_iouquery.apps.data.command import convert_data
from mmdet_iouquery.apps.quickstart.digits import build_digits

TOOL = Path(__file__).resolve().parents[3] / 'tools' / 'data.py'


def run(*arguments: object) -> None:
    convert_data(parser('data').parse_args([*map(str, arguments)]))


def test_json_stands_alone_on_standard_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    yolo_set(tmp_path / 'set', {f'{number}.jpg': BOX_LINE for number in range(5)})
    for _ in range(2):
        run(tmp_path / 'set', '--out', tmp_path / 'out', '--seed', 3, '--json')
        output = capsys.readouterr()
        report = json.loads(output.out)
        assert report['coco']['train_ann'] == str(tmp_path / 'out' / 'train.json') and report['drawn_with_seed'] == 3
        assert report['parts']['train']['boxes_by_class'] == {'cat': 0, 'dog': 4}
        assert str(tmp_path / 'out') in output.err
    run(tmp_path / 'set', '--out', tmp_path / 'out', '--seed', 3)
    assert 'nothing to do' in capsys.readouterr().out


def test_coco_is_checked_and_reported_in_the_same_form(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    digits = build_digits(tmp_path / 'digits', num_train=4, num_val=2, image_size=96, progress=False)
    run(digits, '--json')
    output = capsys.readouterr()
    report = json.loads(output.out)
    assert report['form'] == 'COCO' and report['parts']['val']['images'] == 2 and 'COCO, taken as it is' in output.err
    boxes = json.loads((digits / 'annotations' / 'train.json').read_text())['annotations']
    assert report['parts']['train']['boxes'] == len(boxes)


def test_a_coco_file_that_is_split_is_not_said_to_be_taken_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    digits = build_digits(tmp_path / 'digits', num_train=4, num_val=2, image_size=96, progress=False)
    (digits / 'annotations' / 'val.json').unlink()
    for words in ('has no validation part', 'nothing to do'):
        run(digits)
        lines = capsys.readouterr().out.splitlines()
        assert words in lines[0] and lines[1] == 'COCO, split in two, otherwise taken as it is'


def test_what_is_not_done_with_coco_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    digits = build_digits(tmp_path / 'digits', num_train=4, num_val=2, image_size=96, progress=False)
    shutil.copy(digits / 'annotations' / 'val.json', digits / 'annotations' / 'test.json')
    run(digits, '--out', tmp_path / 'out', '--json')
    remarks = [
        'a test part is there, annotations/test.json; only training and validation are taken',
        f'nothing is written to {tmp_path / "out"}: the set is COCO already',
    ]
    output = capsys.readouterr()
    assert json.loads(output.out)['remarks'] == remarks and not (tmp_path / 'out').exists()
    assert output.err.startswith(f'COCO, taken as it is\n  {remarks[0]}\n  {remarks[1]}\n')


def test_the_tool_ends_with_status_2_and_one_sentence(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, TOOL, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.count('error: ') == 1 and 'one of these: COCO' in done.stderr
    assert 'Traceback' not in done.stderr


def test_the_parser_loads_nothing_heavy() -> None:
    code = 'import sys; from mmdet_iouquery.apps.data import arguments as a; a.parser("data").format_help(); '
    code += 'print(*sys.modules)'
    environment = {**os.environ, REGISTER_VARIABLE: 'later'}
    done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, check=True, env=environment, cwd=TOOL.parents[1]
    )
    assert not {'torch', 'mmengine', 'mmdet', 'numpy', 'matplotlib', 'pyarrow'} & {*done.stdout.split()}
