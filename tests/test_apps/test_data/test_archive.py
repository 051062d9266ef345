"""Zips: never outside their folder, never half, and not again."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest

from mmdet_iouquery.apps.data import archive
from mmdet_iouquery.apps.data.archive import unpacked
from mmdet_iouquery.errors import InputError


def write_zip(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, 'w', compression) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return path


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob('*')
        if path.is_file() and not path.name.startswith('.')
    }


def test_content_is_unpacked_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_zip(tmp_path / 'my set.zip', {'a/b.txt': b'1', 'c\\d.txt': b'2', '__MACOSX/._b': b'3', 'e/': b''})
    folder = unpacked(path)
    assert folder == tmp_path / 'my set-unpacked' and files_of(folder) == {'a/b.txt': b'1', 'c/d.txt': b'2'}
    assert '2 files unpacked' in capsys.readouterr().out
    (folder / 'a' / 'b.txt').write_bytes(b'kept')
    assert unpacked(path) == folder and files_of(folder)['a/b.txt'] == b'kept'
    assert 'is unpacked in' in capsys.readouterr().out


def test_another_zip_of_the_name_takes_the_place(tmp_path: Path) -> None:
    unpacked(write_zip(tmp_path / 'set.zip', {'a.txt': b'1', 'b.txt': b'1'}))
    folder = unpacked(write_zip(tmp_path / 'set.zip', {'a.txt': b'new one'}))
    assert files_of(folder) == {'a.txt': b'new one'}


def test_the_folder_inside_is_the_set(tmp_path: Path) -> None:
    path = write_zip(tmp_path / 'set.zip', {'top/inner/a.txt': b'1', 'top/inner/b/c.txt': b'2'})
    assert unpacked(path) == tmp_path / 'set-unpacked' / 'top' / 'inner'


def test_a_folder_that_is_not_ours_stays(tmp_path: Path) -> None:
    path = write_zip(tmp_path / 'set.zip', {'a.txt': b'1'})
    (tmp_path / 'set-unpacked').mkdir()
    with pytest.raises(InputError, match='set-unpacked is in the way'):
        unpacked(path)
    assert not files_of(tmp_path / 'set-unpacked')


@pytest.mark.parametrize('name', ['../a.txt', 'b/../../a.txt', '/tmp/a.txt', '..\\a.txt', 'C:\\a.txt'])
def test_paths_that_lead_outside_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / 'in').mkdir()
    with pytest.raises(InputError, match='would be unpacked outside its folder; look into it'):
        unpacked(write_zip(tmp_path / 'in' / 'set.zip', {name: b'1'}))
    assert os.listdir(tmp_path / 'in') == ['set.zip'] and os.listdir(tmp_path) == ['in']


def test_a_link_becomes_a_plain_file(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / 'set.zip', 'w') as file:
        link = zipfile.ZipInfo('a.txt')
        link.create_system, link.external_attr = 3, 0o120777 << 16
        file.writestr(link, '/etc/passwd')
        file.writestr('b.txt', '2')
    folder = unpacked(tmp_path / 'set.zip')
    assert not (folder / 'a.txt').is_symlink() and (folder / 'a.txt').read_text() == '/etc/passwd'


def test_what_would_fill_the_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_zip(tmp_path / 'set.zip', {'a.txt': bytes(10**7)})
    monkeypatch.setattr(archive, '_SMALL', 10**6)
    with pytest.raises(InputError, match='would grow from 0 to 10 MB'):
        unpacked(path)
    monkeypatch.setattr(archive, '_SMALL', 10**8)
    monkeypatch.setattr(archive.shutil, 'disk_usage', lambda _: archive.shutil._ntuple_diskusage(0, 0, 10**6))
    with pytest.raises(InputError, match='needs 10 MB beside itself, and 1 MB are free'):
        unpacked(path)
    assert os.listdir(tmp_path) == ['set.zip']


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / 'set.zip', {'a.txt': b'1'})
    data = bytearray(path.read_bytes())
    data[data.index(b'PK\x01\x02') + 8] |= 1  # the flag of its entry in the directory
    path.write_bytes(data)
    with pytest.raises(InputError, match='is encrypted; unpack it yourself'):
        unpacked(path)


@pytest.mark.parametrize('fault', ['cut', 'damaged', 'empty'])
def test_a_zip_that_is_not_whole_leaves_nothing(tmp_path: Path, fault: str) -> None:
    path = write_zip(tmp_path / 'set.zip', {'a.txt': b'good' * 100, 'b.txt': bytes(range(256))}, zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    if fault == 'damaged':
        data[data.index(bytes(range(100)))] ^= 1
    path.write_bytes({'cut': data[:-50], 'damaged': data, 'empty': b''}[fault])
    with pytest.raises(InputError, match='is not a whole zip file'):
        unpacked(path)
    assert os.listdir(tmp_path) == ['set.zip']


def test_an_interrupted_unpacking_is_not_taken_for_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_zip(tmp_path / 'set.zip', {'a.txt': b'1', 'b.txt': b'2'})
    (tmp_path / '.set-unpacked.partial').mkdir()  # of a process that was killed
    (tmp_path / '.set-unpacked.partial' / 'old.txt').write_text('half')
    copy = archive.shutil.copyfileobj
    copied: list[str] = []

    def stop_at_the_second(source: object, target: object, length: int) -> None:
        copied.append(target.name)  # type: ignore[attr-defined]
        if len(copied) == 2:
            raise KeyboardInterrupt
        copy(source, target, length)  # type: ignore[type-var]

    with monkeypatch.context() as patch:
        patch.setattr(archive.shutil, 'copyfileobj', stop_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            unpacked(path)
    assert os.listdir(tmp_path) == ['set.zip'] and len(copied) == 2
    assert files_of(unpacked(path)) == {'a.txt': b'1', 'b.txt': b'2'}
