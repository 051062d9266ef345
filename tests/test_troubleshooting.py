"""The page on which an error is found by its text: none is missing, each says its remedy, what is raised is found."""

from __future__ import annotations

import json
import math
import pickle
import re
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import troubleshooting as page_maker
from message_source import Source
from message_templates import described, pattern, shown
from messages import has_words, messages, messages_of, raises_of, sources
from mmdet.evaluation import CocoMetric
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config, ConfigDict
from scipy.optimize import linear_sum_assignment
from torch import nn

from iouquery_runtime import Detector as ExportedDetector
from mmdet_iouquery import config_path, errors, read_data
from mmdet_iouquery.checkpoints.files import read_checkpoint
from mmdet_iouquery.compat import environment
from mmdet_iouquery.config_options import merge_options, read_options
from mmdet_iouquery.datasets.coco.checks import check_coco
from mmdet_iouquery.datasets.coco.class_list import check_class_list
from mmdet_iouquery.engine.work_dir import check_writable
from mmdet_iouquery.errors import TrainingStopped
from mmdet_iouquery.models.necks import HybridEncoder

ROOT = Path(__file__).resolve().parents[1]

PROSE = page_maker.prose()
VERBS = (
    'add|allow|arrange|ask|build|call|change|check|choose|close|convert|copy|correct|cut|delete|detect|divide|do|draw|export|'
    'fill|fold|get|give|go|have|hide|install|keep|leave|let|list|load|look|lower|make|measure|move|name|number|open|pip|predict|'
    'put|quantise|raise|read|remove|rename|repair|replace|resize|run|save|say|see|set|start|take|train|try|turn|unpack|upgrade|'
    'use|wait|write'
)
REMEDY = re.compile(
    rf'(?:^|[;:,.(] ?|\b(?:or|and|then|so|first|it) )[`\']?(?:{VERBS})\b|\b(?:must|needs?|knows?|resumed|again)\b|'
    r'nearest is|close to it|--(?:resume|restart|force|no-check)|did you mean|\?|pip install|goes by|lists them'
)
"""What a remedy is told by: an imperative, what a value must be, or a question that answers itself."""


@cache
def locations() -> set[str]:
    """Of messages and raises; seconds that only a worker which runs these tests has to spend."""
    in_sources = {raised.location for where in sources() for raised in raises_of(where)}
    return in_sources | {message.location for message in messages(PROSE['told_by'])}


@cache
def page() -> str:
    return page_maker.troubleshooting()


def test_every_raise_is_told_and_each_message_belongs_to_one_subject() -> None:
    untold = [raised for where in sources() for raised in raises_of(where) if not raised.is_told]
    assert len(locations()) > 400
    for raised in untold:
        assert page_maker.is_internal(raised.location), f'{raised}: give it a text, or list it as internal'
    for message in page_maker.shown_messages():
        assert has_words(message.text), (
            f'{message}: its text is made elsewhere; list the place as passed_on, with whose'
        )
        assert page_maker.subject_of(message.location), (
            f'{message.location} belongs to no subject of troubleshooting.yml'
        )
        assert page_maker.code(shown(message.text)) in page(), message


def test_messages_name_the_command_and_no_script_of_a_checkout() -> None:
    assert not [shown(m.text) for m in page_maker.shown_messages() if re.search(r'tools/\w+\.py', shown(m.text))]


@pytest.mark.parametrize('name', ['internal', 'passed_on', 'told_by', 'subjects'])
def test_no_place_is_stale(name: str) -> None:
    if name == 'subjects':
        by_location = {location: subject for subject in page_maker.subjects() for location in subject.locations}
        used = {
            location
            for location, subject in by_location.items()
            for inner in locations()
            if page_maker.subject_of(inner) is subject
        }
    else:
        by_location, used = dict.fromkeys(PROSE[name]), set()
    inside = {location for location in by_location for inner in locations() if page_maker.is_in(inner, location)}
    assert not set(by_location) - inside and (name != 'subjects' or used == set(by_location))


def test_each_error_says_its_remedy_or_has_a_note() -> None:
    lacking = []
    for message in page_maker.shown_messages():
        subject = page_maker.subject_of(message.location)
        if not message.is_error or (subject and subject.is_part) or message.location in PROSE['passed_on']:
            continue
        text = shown(message.text)
        options = [option for _, texts in described(message.text) for option in texts]
        if not REMEDY.search(' '.join([text, *options])) and not page_maker.notes_of(text):
            lacking.append(f'{message.location}: {text}')
    assert not lacking
    assert not REMEDY.search('the file is damaged') and REMEDY.search('the file is damaged; copy it again')


def test_notes_stand_beside_messages_and_words_are_the_same_everywhere() -> None:
    texts = [shown(message.text) for message in page_maker.shown_messages()]
    for note in PROSE['notes']:
        assert sum(note['message'] in text for text in texts) >= 1, note['message']
    for word in ("can't", "doesn't", 'picture', ' torn '):
        assert not [text for text in texts if word in text]


def test_links_lead_to_files_and_headings_that_exist() -> None:
    links = re.findall(r'\]\((?!https?:)([^)#]+)(?:#([\w-]+))?\)', re.sub('`.*?`', '', page()))
    assert len(links) > 20
    for file, anchor in links:
        text = (ROOT / 'docs' / file).read_text(encoding='utf-8')
        headings = [
            re.sub(r'[^\w -]', '', line.lstrip('# ')).lower().replace(' ', '-')
            for line in re.findall('^#+ .*', text, re.M)
        ]
        assert not anchor or anchor in headings, f'{file}#{anchor}'


def test_statuses_are_those_of_the_errors() -> None:
    listed = {int(number) for row in PROSE['statuses'] for number in row[0].split(', ')}
    own = {kind.status for kind in vars(errors).values() if isinstance(kind, type) and hasattr(kind, 'status')}
    assert own | {0, 1} == {status for status in listed if status < 128}
    assert 128 + signal.SIGINT in listed and 128 + signal.SIGTERM in listed


# --- what is raised is found ------------------------------------------------------------------------------------------


def found_by_words(message: str) -> list[str]:
    """The entries that the page's own search puts first: by words, rare ones above all; those of few words last."""

    def words(text: str) -> set[str]:
        return set(re.findall(r'[a-z_]{3,}', text.lower()))

    @cache
    def entries() -> list[tuple[str, set[str], set[str]]]:
        return [
            (line, words(re.sub(r'\{[^}]*\}', ' ', line)), words(re.sub(r'\{[^}]*\}', ' ', values)))
            for line, values in re.findall(r'^- (`.*`)\n((?:    - `\{.*\n)*)', page(), flags=re.M)
        ]

    number = Counter(word for _, own, _ in entries() for word in own)

    def weight(some: set[str]) -> float:
        return sum(math.log(len(entries()) / number.get(word, 1)) for word in some)

    ranked = []
    for line, own, values in entries():
        hits = (own | values) & words(message)
        share = weight(own & hits) / (weight(own) or 1)
        if share >= 0.6:
            ranked.append((len(own | hits) < 5, -share * weight(hits), line))
    best = min((score for _, score, _ in ranked), default=0)
    return [line for _, score, line in sorted(ranked) if score < best / 2][:5]


def _coco(folder: Path, content: Any) -> Path:
    path = folder / 'ann.json'
    path.write_text(json.dumps(content), encoding='utf-8')
    return path


def _content(**changes: Any) -> dict[str, Any]:
    annotation = dict(id=1, image_id=1, category_id=3, bbox=[1, 1, 20, 20], area=400, iscrowd=0)
    image = dict(id=1, file_name='1.jpg', width=64, height=48)
    return dict(images=[image], annotations=[annotation], categories=[dict(id=3, name='cat')]) | changes


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def _environment() -> None:
    raise ImportError(
        environment.environment_message({}, environment.diagnose({'mmcv': '2.1.0', 'onedl-mmcv': '2.3.6'}))
    )


def _stop() -> None:
    raise TrainingStopped(signal.SIGTERM, 'after iteration 7; saved w/iter_7.pth, from which it can be resumed')


OURS: dict[str, Callable[[Path], Any]] = {
    'there is no file {path}': lambda folder: read_checkpoint(folder / 'gone.pth'),
    '{path} is no checkpoint': lambda folder: read_checkpoint(_written(folder / 'a.pth', b'<!DOCTYPE html>')),
    'is not a complete checkpoint': lambda folder: read_checkpoint(_written(folder / 'a.pth', b'PK\3\4 and so on')),
    'nothing reads {name}; did you mean': lambda _: merge_options(Config(), {'train_dataloder.batch_size': 2}),
    'its brackets are not balanced': lambda _: read_options({'a': '[1, 2'}),
    'there is no shipped config': lambda _: config_path('rtdetr_r17vd'),
    'not an object with images': lambda folder: check_coco(_coco(folder, [1]), None, ['cat']),
    'which no (image | category)': lambda folder: check_coco(
        _coco(folder, _content(categories=[dict(id=1, name='cat')])), None, ['cat']
    ),
    'is used {count} times': lambda folder: check_coco(
        _coco(folder, _content(categories=2 * [dict(id=3, name='cat')])), None, ['cat']
    ),
    'image files are not in {image_dir}': lambda folder: check_coco(_coco(folder, _content()), folder, ['cat']),
    'of its {total} boxes {problem}': lambda folder: check_coco(
        _coco(folder, _content(annotations=[_content()['annotations'][0] | dict(bbox=[0.1, 0.1, 0.5, 0.5])])),
        None,
        ['cat'],
    ),
    'is no set in a form that is known': lambda folder: read_data(folder),
    'is not a whole zip file': lambda folder: read_data(_written(folder / 'a.zip', b'PK\3\4')),
    'letters would be taken for classes': lambda _: check_class_list('cat'),
    'HybridEncoder was built for': lambda _: HybridEncoder([8, 16])([torch.zeros(1, 8, 4, 4)]),
    '{name} must be': lambda _: MODELS.build(dict(type='IoUAwareQuerySelector', num_classes=0, embed_dims=8)),
    'cannot write to the folder': lambda folder: check_writable(_written(folder / 'file', b'') / 'below'),
    'is neither .onnx nor .xml': lambda folder: ExportedDetector(_written(folder / 'a.pth', b'')),
    'cannot run with the packages': lambda _: _environment(),
    'stopped by {signal} after iteration': lambda _: _stop(),
}


@pytest.mark.parametrize('entry', OURS)
def test_an_error_is_found_by_its_text(entry: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises((Exception, SystemExit)) as caught:
        OURS[entry](tmp_path)
    message = str(caught.value)
    fitting = [m for m in page_maker.shown_messages() if entry in shown(m.text) or entry in str([*described(m.text)])]
    assert any(re.fullmatch(pattern(m.text), message) for m in fitting), message
    assert any(entry in line for line in found_by_words(message)) or any(
        line in page_maker.entry(m) for m in fitting for line in found_by_words(message)
    ), (message, found_by_words(message))
    capsys.readouterr()


@pytest.mark.parametrize(
    ('message', 'first'),
    [
        ('error: no annotation file data/mine/val.json; its folder does not exist', 'no annotation file {path}'),
        ("TypeError: A.__init__() got an unexpected keyword argument 'depth'", 'got an unexpected keyword argument'),
        ("FileNotFoundError: [Errno 2] No such file or directory: 'data/coco/annotations/a.json'", '[Errno 2] No such'),
        (
            "model.neck: A has no argument 'depht'; did you mean 'depth'?; correct or remove it",
            'has no argument {name}',
        ),
        ('iouquery train: error: unrecognized arguments: --epocks 5', 'unrecognized arguments'),
    ],
)
def test_rare_words_decide_and_entries_of_few_words_come_last(message: str, first: str) -> None:
    assert first in found_by_words(message)[0]


def test_another_text_is_not_found() -> None:
    assert not found_by_words('the weather is fine in the north of the country')
    assert not any(re.fullmatch(pattern(m.text), 'all went well') for m in page_maker.shown_messages())


# --- messages of others -----------------------------------------------------------------------------------------------


def _dataset(folder: Path, content: bytes, **settings: Any) -> Any:
    file = _written(folder / 'ann.json', content)
    return DATASETS.build(
        dict(type='CocoDataset', ann_file=str(file), data_prefix=dict(img=''), pipeline=[], **settings)
    )


def _evaluated(folder: Path, image_id: int, **annotation: Any) -> Any:
    plain = {key: value for key, value in _content()['annotations'][0].items() if key != 'iscrowd'}
    metric = CocoMetric(ann_file=str(_coco(folder, _content(annotations=[plain | annotation]))), metric='bbox')
    metric.dataset_meta = dict(classes=('cat',))
    instances = dict(bboxes=torch.ones(1, 4), scores=torch.ones(1), labels=torch.zeros(1, dtype=torch.long))
    metric.process({}, [dict(img_id=image_id, ori_shape=(48, 64), pred_instances=instances)])
    return metric.evaluate(1)


def _config(folder: Path, text: str) -> Config:
    (folder / 'base.py').write_text('max_epochs = 3\n')
    (folder / 'other.py').write_text('max_epochs = 4\n')
    (folder / 'config.py').write_text(text)
    return Config.fromfile(folder / 'config.py')


OTHERS: dict[str, Callable[[Path], Any]] = {
    '[Errno 2] No such file': lambda folder: DATASETS.build(
        dict(type='CocoDataset', ann_file=str(folder / 'gone.json'), data_prefix=dict(img=''), pipeline=[])
    ),
    'got an unexpected keyword argument': lambda _: MODELS.build(dict(type='HybridEncoder', in_channels=[8], depht=2)),
    'is not in the {scope}::{registry} registry': lambda _: MODELS.build(ConfigDict(type='NoSuchHead')),
    'is already registered in': lambda _: MODELS.register_module(module=nn.Linear, name='RTDETRHead'),
    'Weights only load failed': lambda folder: torch.load(_written(folder / 'a.pth', b'<html>')),
    'failed reading zip archive': lambda folder: torch.load(_written(folder / 'a.pth', b'PK\3\4 and so on')),
    'size mismatch for': lambda _: nn.Linear(4, 80).load_state_dict(nn.Linear(4, 3).state_dict()),
    'need at least one array': lambda folder: len(
        _dataset(
            folder,
            json.dumps(_content()).encode(),
            metainfo=dict(classes=('ox',)),
            filter_cfg=dict(filter_empty_gt=True),
        )
    ),
    'annotation file format': lambda folder: _dataset(folder, b'[1]'),
    'Unexpected UTF-8 BOM': lambda folder: _dataset(folder, b'\xef\xbb\xbf{}'),
    "'iscrowd'": lambda folder: _evaluated(folder, 1),
    'Results do not correspond': lambda folder: _evaluated(folder, 7),
    'Class values must be smaller': lambda _: nn.functional.one_hot(torch.tensor([5]), 3),
    'index out of range in self': lambda _: nn.Embedding(3, 4)(torch.tensor([5])),
    'matrix contains invalid': lambda _: linear_sum_assignment(np.full((2, 2), np.nan)),
    'cost matrix is infeasible': lambda _: linear_sum_assignment(np.full((2, 2), np.inf)),
    'Given groups=': lambda _: nn.Conv2d(8, 4, 1)(torch.zeros(1, 16, 4, 4)),
    'mat1 and mat2 shapes': lambda _: nn.Linear(8, 4)(torch.zeros(3, 16)),
    'Duplicate key is not allowed': lambda folder: _config(folder, "_base_ = ['base.py', 'other.py']"),
    'is not defined': lambda folder: _config(folder, "_base_ = ['base.py']\nmax_iters = 2 * max_epochs"),
}


@pytest.mark.parametrize('entry', OTHERS)
def test_messages_of_others_are_as_the_page_has_them(entry: str, tmp_path: Path) -> None:
    (text,) = [text for other in PROSE['others'] for text in other['messages'] if entry in text]
    kinds = (AssertionError, LookupError, NameError, OSError, RuntimeError, TypeError, ValueError, pickle.PickleError)
    with pytest.raises(kinds) as caught:
        OTHERS[entry](tmp_path)
    message = f'{type(caught.value).__name__}: {caught.value}'.replace('"', '')
    assert re.search(re.sub(r'\\{\w+\\}', r'[\\s\\S]*?', re.escape(text)), message), message
    assert page_maker.code(text) in page()


# --- how texts are read -----------------------------------------------------------------------------------------------

SAID = """
from pathlib import Path
_END = 'write px'
_ENDS = {1: 'write one', 2: f'write {_END}'}

def plain(path, kind, n, names):
    raise InputError(f'{path} has {len(names)} {"boxes" if n else "images"}; ' + _END)

def listed(names, more):
    parts = ['first', f'then {names[0]}']
    raise InputError('; '.join([*parts, 'last']))

def helped(path, key):
    end = _ENDS[key]
    raise ValueError(f'{path.name!r}: {_remedy(path)}; {end}')

def _remedy(path):
    if path.exists():
        return f'look at {path} with care'
    return 'get the file again'

def called():
    for what in ('an image', 'a box'):
        _refuse(what, extra=' of it all')

def _refuse(what, extra=''):
    raise _made(f'{what} is lost{extra}')

def _made(text):
    return RuntimeError(text)
"""


def _texts(folder: Path, code: str) -> Iterator[str]:
    where = Source(_written(folder / 'code.py', code.encode()), folder)
    assert all(raised.is_told for raised in raises_of(where))
    return (shown(message.text) for message in messages_of(where))


def test_texts_are_put_together_as_the_code_does_it(tmp_path: Path) -> None:
    assert [*_texts(tmp_path, SAID)] == [
        '{path} has {number} (boxes | images); write px',
        'first; then {names}; last',
        '{name}: {remedy}; (write one | write write px)',
        '(an image | a box) is lost of it all',
    ]


@pytest.mark.parametrize('code', ['raise error_of(x)', 'raise Stop', 'raise InputError', 'raise InputError()'])
def test_an_error_without_a_text_is_seen(code: str, tmp_path: Path) -> None:
    where = Source(_written(tmp_path / 'code.py', code.encode()), tmp_path)
    assert [raised.is_told for raised in raises_of(where)] == [False]


def test_a_text_that_is_made_elsewhere_is_seen(tmp_path: Path) -> None:
    where = Source(_written(tmp_path / 'code.py', b'raise InputError(elsewhere(1))'), tmp_path)
    assert [has_words(message.text) for message in messages_of(where)] == [False]
