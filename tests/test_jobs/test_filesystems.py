"""Files in S3 and on a disk: against a server on this machine that fails now and then."""

from __future__ import annotations

import multiprocessing
import random
from collections import Counter
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip('moto', reason='needs moto[server,s3]')
pytest.importorskip('pyarrow')

from s3_server import FAULTS, Door, fill, s3_server

from iouquery_runtime import InputError
from iouquery_runtime.jobs import filesystems
from iouquery_runtime.jobs.filesystems import iterate_files, read_bytes, resolve

MANY = 1100
"""Keys in one folder: S3 lists 1,000 at once."""
IMAGES = {f'd/{number}.jpg': random.Random(number).randbytes(400 + number) for number in range(12)}


@pytest.fixture(scope='module')
def server() -> Iterator[Door]:
    with s3_server() as door:
        fill('images', {**IMAGES, 'd/e/100% of #1.jpg': b'odd', 'd/a/b/c.jpg': b'deep'})
        fill('many', {f'd/{number:04}.jpg': b'' for number in range(MANY)})
        yield door


@pytest.fixture
def door(server: Door, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Door:
    """No faults are planned, the pauses are short, and there are credentials."""
    server.clear()
    monkeypatch.setattr(filesystems, 'PAUSES', (0.0, 0.0, 0.0))
    monkeypatch.setenv('AWS_ACCESS_KEY_ID', 'key')
    monkeypatch.setenv('AWS_SECRET_ACCESS_KEY', 'secret')
    monkeypatch.setenv('AWS_EC2_METADATA_DISABLED', 'true')
    monkeypatch.setenv('AWS_SHARED_CREDENTIALS_FILE', str(tmp_path / 'none'))
    for name in ('AWS_ENDPOINT_URL', 'AWS_ENDPOINT_URL_S3', 'AWS_PROFILE'):
        monkeypatch.delenv(name, raising=False)
    filesystems._s3.cache_clear()
    return server


def of_door(door: Door, path: str, more: str = '') -> str:
    return f's3://{path}?endpoint_override={door.endpoint}&scheme=http&region=us-east-1{more}'


def test_a_uri_gives_the_file_system_and_the_path(door: Door) -> None:
    filesystem, path = resolve(of_door(door, 'images/d'))
    assert (filesystem.type_name, path) == ('s3', 'images/d')
    for key, content in IMAGES.items():
        assert read_bytes(filesystem, f'images/{key}') == content


def test_the_endpoint_may_stand_in_the_environment(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('AWS_ENDPOINT_URL', f'http://{door.endpoint}/')
    assert read_bytes(*resolve('s3://images/d/3.jpg?region=us-east-1')) == IMAGES['d/3.jpg']
    monkeypatch.setenv('AWS_ENDPOINT_URL', 'http://127.0.0.1:1')
    monkeypatch.setenv('AWS_ENDPOINT_URL_S3', f'http://{door.endpoint}')
    assert read_bytes(*resolve('s3://images/d/4.jpg')) == IMAGES['d/4.jpg']


def test_keys_stand_as_they_are(door: Door) -> None:
    assert read_bytes(*resolve(of_door(door, 'images/d/e/100% of #1.jpg'))) == b'odd'


def test_a_bucket_is_asked_for_once(door: Door) -> None:
    for key in IMAGES:
        resolve(of_door(door, f'images/{key}'))
    assert [request[:2] for request in door.requests] == [('HEAD', '/images')]


def test_a_folder_is_listed_with_those_below_it(door: Door) -> None:
    filesystem, path = resolve(of_door(door, 'images/d'))
    own = sorted(f'images/{key}' for key in IMAGES)
    assert [*iterate_files(filesystem, path)] == [*own, 'images/d/a/b/c.jpg', 'images/d/e/100% of #1.jpg']


def test_a_folder_of_more_than_a_page_is_listed_whole(door: Door) -> None:
    filesystem, path = resolve(of_door(door, 'many/d'))
    door.requests.clear()
    door.planned.extend([None, '503', 'cut', 'reset', None])  # of the second page
    assert [*iterate_files(filesystem, path)] == [f'many/d/{number:04}.jpg' for number in range(MANY)]
    assert len(door.requests) == 6 and not door.planned


def test_folders_are_listed_when_their_turn_comes(door: Door) -> None:
    filesystem, path = resolve(of_door(door, 'images/d'))
    door.requests.clear()
    files = iterate_files(filesystem, path)
    next(files)
    assert len(door.requests) == 1
    assert len([*files]) == len(IMAGES) + 1
    assert len(door.requests) == 4


def test_what_is_read_is_right_whatever_fails(door: Door) -> None:
    filesystem, _ = resolve(of_door(door, 'images/d'))
    door.requests.clear()
    faults = [*FAULTS * 3, *[None] * 2 * len(IMAGES)]
    random.Random(0).shuffle(faults)
    door.planned.extend(faults)
    for key, content in IMAGES.items():
        assert read_bytes(filesystem, f'images/{key}') == content
    seen = Counter(fault for _, _, fault in door.requests)
    assert all(seen[fault] > 1 for fault in FAULTS), seen


@pytest.mark.parametrize(('method', 'fault'), [*(('GET', fault) for fault in FAULTS), ('HEAD', '503')])
def test_a_fault_that_outlasts_the_clients_own_attempts_is_outlasted(door: Door, method: str, fault: str) -> None:
    filesystem, _ = resolve(of_door(door, 'images/d'))
    door.planned.extend([*([None] if method == 'GET' else []), *[fault] * 4])
    assert read_bytes(filesystem, 'images/d/7.jpg') == IMAGES['d/7.jpg']
    assert not door.planned


def test_fewer_bytes_than_the_file_has_are_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a store whose client does not see it itself."""
    monkeypatch.setattr(filesystems, 'PAUSES', (0.0,))
    contents = [b'who', b'whole', b'', b'w']

    class File(BytesIO):
        def size(self) -> int:
            return 5

    store = SimpleNamespace(open_input_file=lambda path: File(contents.pop(0)))
    assert read_bytes(store, 'a') == b'whole'
    with pytest.raises(
        InputError, match=r'^a cannot be read in 2 attempts: the file is cut short: 1 of 5 bytes; check'
    ):
        read_bytes(store, 'a')


def test_pauses_grow_between_the_attempts_and_it_ends(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filesystems, 'PAUSES', (1.0, 2.0))
    slept: list[float] = []
    monkeypatch.setattr(filesystems.time, 'sleep', slept.append)
    filesystem, _ = resolve(of_door(door, 'images/d'))
    door.planned.extend(['503'] * 100)
    with pytest.raises(InputError, match=r'^images/d/7.jpg cannot be read in 3 attempts: AWS Error .*503'):
        read_bytes(filesystem, 'images/d/7.jpg')
    assert slept == [1.0, 2.0]
    assert 100 - len(door.planned) == 9  # three of the client in each


def test_what_stays_as_it_is_is_not_tried_again(door: Door) -> None:
    filesystem, _ = resolve(of_door(door, 'images/d'))
    door.requests.clear()
    with pytest.raises(InputError, match=r'^there is no file or folder images/d/none.jpg; correct the path$'):
        read_bytes(filesystem, 'images/d/none.jpg')
    tried = [request[1] for request in door.requests]
    assert tried.count('/images/d/none.jpg') == 1
    with pytest.raises(InputError, match=r'^there is no file or folder images/none; correct the path$'):
        [*iterate_files(filesystem, 'images/none')]


def test_a_bucket_that_is_missing_is_told_before_any_work(door: Door) -> None:
    with pytest.raises(InputError, match=r"^there is no bucket 'nothing-here'; check its name"):
        resolve(of_door(door, 'nothing-here/d'))
    assert len(door.requests) == 1


def test_access_that_is_refused_is_told_with_the_remedy(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('AWS_ACCESS_KEY_ID', '')
    monkeypatch.setenv('AWS_SECRET_ACCESS_KEY', '')
    filesystem, _ = resolve(of_door(door, 'images/d', '&anonymous=true'))
    door.requests.clear()
    with pytest.raises(InputError, match=r'^images/d/1.jpg is refused: AWS Error ACCESS_DENIED .*no credentials were'):
        read_bytes(filesystem, 'images/d/1.jpg')
    assert len(door.requests) == 1
    monkeypatch.setenv('AWS_ACCESS_KEY_ID', 'key')
    with pytest.raises(InputError, match=r'the credentials that were found do not allow it: use others$'):
        read_bytes(filesystem, 'images/d/1.jpg')


def test_a_bucket_that_refuses_is_told(door: Door) -> None:
    door.planned.append('403')
    with pytest.raises(InputError, match=r"^the bucket 'images' refuses access: AWS Error ACCESS_DENIED .*; the cred"):
        resolve(of_door(door, 'images/d'))
    assert len(door.requests) == 1


def test_a_server_that_does_not_answer_is_told(door: Door) -> None:
    with pytest.raises(InputError, match=r"^the bucket 'images' cannot be reached: AWS Error NETWORK_CONNECTION"):
        resolve('s3://images/d?endpoint_override=127.0.0.1:1&scheme=http&region=us-east-1')
    with pytest.raises(InputError, match=r"^the bucket 'images' cannot be reached: google"):
        resolve('gs://anonymous@images/d?endpoint_override=127.0.0.1:1&scheme=http&retry_limit_seconds=1')


@pytest.mark.parametrize(
    ('uri', 'message'),
    [
        ('ftp://host/d', r'^ftp://host/d: there is no file system for ftp://; name one of s3, gs'),
        (
            's3://images/d?endpoint=x',
            r"^s3://images\?\.\.\.: unknown option 'endpoint'; name one of region, endpoint_ov",
        ),
        ('s3://key:secret@images/d', r'^s3://\.\.\.@images: credentials do not belong into a URI'),
        ('s3:///d', r"^'s3:///d' names no bucket"),
        ('abfs://container/d', r'^abfs://container/d cannot be opened: '),
    ],
)
def test_uris_that_cannot_be(uri: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        resolve(uri)
    assert 'secret' not in str(caught.value) and '\n' not in str(caught.value)


def test_another_process_reads_from_the_same_file_system(door: Door) -> None:
    filesystem, _ = resolve(of_door(door, 'images/d'))
    with multiprocessing.get_context('spawn').Pool(1) as pool:
        assert pool.apply(read_bytes, (filesystem, 'images/d/5.jpg')) == IMAGES['d/5.jpg']
        with pytest.raises(InputError, match=r'^there is no file or folder images/d/none.jpg; correct the path$'):
            pool.apply(read_bytes, (filesystem, 'images/d/none.jpg'))


def test_a_folder_of_this_machine(tmp_path: Path) -> None:
    (tmp_path / 'b' / 'c').mkdir(parents=True)
    for name in ('z.jpg', 'a ü.jpg', 'b/1.jpg', 'b/c/2.jpg'):
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / 'b' / 'round').symlink_to(tmp_path)
    (tmp_path / 'b' / 'gone.jpg').symlink_to(tmp_path / 'nowhere')
    filesystem, path = resolve(str(tmp_path))
    expected = ['a ü.jpg', 'z.jpg', 'b/1.jpg', 'b/c/2.jpg']
    assert [*iterate_files(filesystem, path)] == [str(tmp_path / name) for name in expected]
    assert read_bytes(*resolve(f'{tmp_path}/a ü.jpg')) == 'a ü.jpg'.encode()
    assert read_bytes(*resolve((tmp_path / 'b' / '1.jpg').as_uri())) == b'b/1.jpg'
    assert [*iterate_files(*resolve((tmp_path / 'b' / 'c').as_uri()))] == [str(tmp_path / 'b' / 'c' / '2.jpg')]


def test_what_cannot_be_read_on_this_machine(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf'^there is no file or folder {tmp_path}/none.jpg; correct the path$'):
        read_bytes(*resolve(f'{tmp_path}/none.jpg'))
    with pytest.raises(InputError, match=rf'^{tmp_path} cannot be read: '):
        read_bytes(*resolve(str(tmp_path)))
    with pytest.raises(InputError, match=rf'^there is no file or folder {tmp_path}/none; correct the path$'):
        [*iterate_files(*resolve(f'{tmp_path}/none'))]
