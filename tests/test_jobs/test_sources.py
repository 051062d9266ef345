"""What ``--images`` names: paths and ids, listed as a stream."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from iouquery_runtime.errors import InputError

pa = pytest.importorskip('pyarrow')
annotation_file = pytest.importorskip('iouquery_runtime.jobs.annotation_file')
sources = pytest.importorskip('iouquery_runtime.jobs.sources')
parquet = pytest.importorskip('pyarrow.parquet')
Source = sources.Source


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ('b.jpg', 'a.PNG', 'notes.txt', 'sub/c.jpg', 'sub/deep/d e%20f.jpg', 'sub/[x].jpg', 'über.webp'):
        (tmp_path / 'set' / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / 'set' / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path / 'set'


def names(images: str, root: str | None = None) -> list[str]:
    """Paths below the folder ``set``."""
    return [image.path.rpartition('/set/')[2] for image in Source(images, root)]


def manifest(file: Path, /, **columns: Any) -> None:
    parquet.write_table(pa.table(columns), file)


def test_a_folder_with_all_below_it(tree: Path) -> None:
    paths = ['a.PNG', 'b.jpg', 'über.webp', 'sub/[x].jpg', 'sub/c.jpg', 'sub/deep/d e%20f.jpg']
    for folder in ('set', 'set/', './set', str(tree), f'{tree.parent}/./set'):
        assert names(folder) == paths
        assert [image.path for image in Source(folder)] == [f'{tree}/{name}' for name in paths]


def test_ids_of_paths_are_63_bits_of_their_blake2b(tree: Path) -> None:
    """The same from wherever the command is started: paths are absolute."""
    for image in Source('set'):
        digest = hashlib.blake2b(image.path.encode(), digest_size=8).digest()
        assert image.id == int.from_bytes(digest, 'big') // 2 and image.id < 2**63
    assert [*Source('set')] == [*Source(str(tree))]


@pytest.mark.parametrize(
    ('pattern', 'expected'),
    [
        ('set/*.jpg', ['b.jpg']),
        ('set/*', ['a.PNG', 'b.jpg', 'notes.txt', 'über.webp']),
        ('set/**/*.jpg', ['b.jpg', 'sub/[x].jpg', 'sub/c.jpg', 'sub/deep/d e%20f.jpg']),
        ('set/*/*.jpg', ['sub/[x].jpg', 'sub/c.jpg']),
        ('set/sub/?.jpg', ['sub/c.jpg']),
        ('set/sub/[!d].jpg', ['sub/c.jpg']),
        ('set/[ab].*', ['a.PNG', 'b.jpg']),
        ('set/sub/[x].jpg', ['sub/[x].jpg']),  # it is there, so it is no pattern
        ('set/sub/deep/d e%20f.jpg', ['sub/deep/d e%20f.jpg']),
    ],
)
def test_patterns_are_those_of_a_shell(tree: Path, pattern: str, expected: list[str]) -> None:
    assert names(pattern) == expected
    assert names(f'{tree.parent}/{pattern}') == expected


def test_a_manifest_with_ids_or_without(tree: Path) -> None:
    paths = ['b.jpg', f'{tree}/a.PNG', 's3://bucket/x.jpg']
    manifest(tree / 'list.parquet', path=paths, id=[7, -3, 2**62], more=[1.5, 2.5, 3.5])
    recorded = [f'{tree}/b.jpg', f'{tree}/a.PNG', 's3://bucket/x.jpg']
    assert [*Source('set/list.parquet')] == [*zip([7, -3, 2**62], recorded)]
    assert Source('set/list.parquet').has_ids()
    manifest(tree / 'bare.parquet', path=paths)
    assert [*Source('set/bare.parquet')] == [(sources.path_id(path), path) for path in recorded]
    assert not Source('set/bare.parquet').has_ids()
    assert [image.path for image in Source('set/bare.parquet', '/elsewhere/')][:2] == ['/elsewhere/b.jpg', recorded[1]]


def test_manifests_of_a_pattern(tree: Path) -> None:
    for i in range(3):
        manifest(tree / f'list{i}.parquet', path=[f'{i}.jpg'], id=[i])
    assert [*Source('set/list*.parquet')] == [(i, f'{tree}/{i}.jpg') for i in range(3)]


def test_an_annotation_file_gives_its_ids_and_categories(tree: Path) -> None:
    categories = [dict(id=18, name='dog'), dict(id=1, name='person')]
    images = [dict(id=5, file_name='sub/c.jpg', width=4, height=3), dict(file_name='b.jpg', id=9)]
    content = dict(
        info={}, images=images, annotations=[dict(id=1, image_id=5, bbox=[0, 0, 1, 1])], categories=categories
    )
    (tree / 'val.json').write_text(json.dumps(content))
    source = Source('set/val.json')
    assert [*source] == [(5, f'{tree}/sub/c.jpg'), (9, f'{tree}/b.jpg')]
    assert source.category_ids(['person', 'dog']) == [1, 18]
    with pytest.raises(InputError, match=r"finds 'cat', which the categories of set/val.json do not name"):
        source.category_ids(['person', 'cat'])
    assert [image.path for image in Source('set/val.json', 'other')] == [
        f'{tree.parent}/other/sub/c.jpg',
        f'{tree.parent}/other/b.jpg',
    ]


def test_the_folder_that_an_annotation_file_names_is_taken_where_the_images_are_not_beside_it(tree: Path) -> None:
    images = [dict(id=5, file_name='c.jpg')]
    for info, expected in (
        (dict(image_folder=f'{tree}/sub'), f'{tree}/sub/c.jpg'),
        (dict(image_folder='sub'), f'{tree.parent}/c.jpg'),  # of what, nobody knows
        ({}, f'{tree.parent}/c.jpg'),
    ):
        (tree.parent / 'val.json').write_text(json.dumps(dict(info=info, images=images)))
        assert [*Source('val.json')] == [(5, expected)]
        assert [image.path for image in Source('val.json', '/data')] == ['/data/c.jpg']
    (tree.parent / 'c.jpg').touch()
    (tree.parent / 'val.json').write_text(json.dumps(dict(info=dict(image_folder=f'{tree}/sub'), images=images)))
    assert [image.path for image in Source('val.json')] == [f'{tree.parent}/c.jpg']


class InPieces(io.BytesIO):
    """Gives a few bytes at a time, whatever is asked for, and notes how many were asked for at most."""

    most = 0

    def read(self, size: int | None = -1) -> bytes:
        self.most = max(self.most, size or 0)
        return super().read(7)


@pytest.mark.parametrize('indent', [None, 2])
def test_json_is_read_in_pieces(indent: int | None) -> None:
    """Wherever a piece ends: in a number, in a letter of several bytes, in an escape, between values."""
    content = {
        'version': -12.5e3,
        'nothing': [],
        'images': [{'id': 10**12 + i, 'file_name': f'ü\\"\u2603 {i}.jpg', 'list': [1, [2, {}]]} for i in range(20)],
        'numbers': [1, 22, 333, 4444.5, True, None],
        'last': {'a': {'b': []}},
    }
    data = b'\xef\xbb\xbf' + json.dumps(content, indent=indent, ensure_ascii=False).encode()
    read: dict[str, Any] = {}
    for key, value in annotation_file.Reader(InPieces(data), 'x.json').elements():
        read.setdefault(key, []).append(value)
    assert read == {
        'version': [-12.5e3],
        'images': content['images'],
        'numbers': content['numbers'],
        'last': [content['last']],
    }


def test_a_long_annotation_file_is_never_held_whole() -> None:
    """Of 20 MB no more than a few pieces are text at a time, whatever stands before the images."""

    def pieces() -> Iterator[bytes]:
        yield b'{"annotations": ['
        for i in range(100_000):
            yield b'%s{"id": %d, "image_id": %d, "segmentation": [%s]}' % (
                b',' if i else b'',
                i,
                i,
                b'1.25,' * 30 + b'0',
            )
        yield b'], "images": ['
        for i in range(1000):
            yield b'%s{"id": %d, "file_name": "%d.jpg"}' % (b',' if i else b'', i, i)
        yield b']}'

    class Stream:
        def __init__(self) -> None:
            self.pieces, self.rest, self.total = pieces(), b'', 0

        def read(self, size: int) -> bytes:
            while len(self.rest) < size and (piece := next(self.pieces, b'')):
                self.rest += piece
            chunk, self.rest = self.rest[:size], self.rest[size:]
            self.total += len(chunk)
            return chunk

    stream, held = Stream(), 0
    reader = annotation_file.Reader(stream, 'x.json')
    for i, (image_id, name) in enumerate(annotation_file.images(reader)):
        assert (image_id, name) == (i, f'{i}.jpg')
        held = max(held, len(reader._text))
    assert i == 999 and stream.total > 18e6 and held <= 2 * annotation_file._CHUNK


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('[]', "is no annotation file in COCO's form: '\\[' where '{' should be"),
        ('{"images": [{"id": 1, "file_name": "a.jpg"}', 'the file is cut short'),
        ('{"images": [{"id": 1, "file_name": "a.jpg"', "is no annotation file in COCO's form: Expecting"),
        ('{"images": [{"id": 1 "file_name": 2}]}', "is no annotation file in COCO's form: Expecting ',' delimiter"),
        ('{"images": [{"id": "1", "file_name": "a.jpg"}]}', 'has an image without a whole number as "id"'),
        ('{"images": [{"id": 1}]}', 'has an image without a whole number as "id" and a "file_name"; .*: {"id": 1}'),
        ('{"images": []}', 'set/x.json names no images'),
        ('{}', 'set/x.json names no images'),
        ('', 'the file is cut short'),
    ],
)
def test_annotation_files_that_are_none(tree: Path, content: str, message: str) -> None:
    (tree / 'x.json').write_text(content)
    with pytest.raises(InputError, match=message):
        [*Source('set/x.json')]


def test_what_is_not_there_or_not_as_it_should_be(tree: Path) -> None:
    (tree / 'empty').mkdir()
    (tree / 'no.parquet').write_text('text')
    manifest(tree / 'without.parquet', file=['a.jpg'], id=[1])
    manifest(tree / 'texts.parquet', path=['a.jpg'], id=['1'])
    manifest(tree / 'numbers.parquet', path=[1])
    manifest(tree / 'holes.parquet', path=['a.jpg', None])
    manifest(tree / 'none.parquet', path=pa.array([], pa.string()))
    for images, message in {
        '': '--images is empty',
        'nowhere': 'there is no file or folder nowhere',
        'nowhere/*.jpg': 'there is no file or folder',
        'set/*.gif': r'the pattern set/\*.gif matches no file',
        'set/empty': r'the folder set/empty has no images \(\.bmp, ',
        'set/without.parquet': "has the columns file, id and no 'path'",
        'set/texts.parquet': "the column 'id' of .*texts.parquet is string; it must be int64",
        'set/numbers.parquet': "the column 'path' of .*numbers.parquet is int64; it must be text",
        'set/holes.parquet': 'has rows without path',
        'set/none.parquet': 'none.parquet names no images',
        'set/no.parquet': 'is not a parquet file that can be read',
        'ftp://host/x': 'there is no file system for ftp://',
    }.items():
        with pytest.raises(InputError, match=message):
            [*Source(images)]
    with pytest.raises(InputError, match='--root is for the paths in a manifest or annotation file, which set is not'):
        Source('set', 'set')
