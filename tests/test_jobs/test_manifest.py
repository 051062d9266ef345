"""The images of a job on disk: ids once, shards, what is still to be done; no list of all of them."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from iouquery_runtime.errors import InputError, WriteError

pa = pytest.importorskip('pyarrow')
manifest = pytest.importorskip('iouquery_runtime.jobs.manifest')
Image = pytest.importorskip('iouquery_runtime.jobs.sources').Image
Remaining, Shard = manifest.Remaining, manifest.Shard


def images(count: int, step: int = 7) -> Iterator:
    return (Image(step * (count - i), f'/images/{i:08d}.jpg') for i in range(count))


def test_files_of_10000_rows_with_all_images_in_their_order(tmp_path: Path) -> None:
    ids = manifest.write_manifest(images(25_000), tmp_path)
    assert ids.dtype == np.int64
    np.testing.assert_array_equal(ids, 7 * np.arange(1, 25_001))
    tables = [*manifest.manifest_tables(tmp_path)]
    assert [len(table) for table in tables] == [10_000, 10_000, 5_000]
    rows = [(row['id'], row['path']) for table in tables for row in table.to_pylist()]
    assert rows == [*images(25_000)]
    np.testing.assert_array_equal(manifest.manifest_ids(tmp_path), ids)


def test_memory_is_that_of_one_file_and_the_ids(tmp_path: Path) -> None:
    """50,000 images more take 0.4 MB of ids, and at most three times that while they are put together."""

    def listed_and_gone_through(count: int) -> int:
        folder = tmp_path / str(count)
        tracemalloc.start()
        before = pa.total_allocated_bytes()
        ids = manifest.write_manifest(images(count), folder)
        for table in Remaining(ids).of(manifest.manifest_tables(folder)):
            assert len(table) == manifest.ROWS and pa.total_allocated_bytes() - before < 4e6
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    few, many = listed_and_gone_through(20_000), listed_and_gone_through(70_000)
    assert many - few < 50_000 * 8 * 4


def test_an_id_of_two_images_is_refused_with_both(tmp_path: Path) -> None:
    twice = [*images(12_000), Image(7 * 5, '/images/other.jpg'), Image(7 * 9, '/images/more.jpg')]
    with pytest.raises(InputError, match=r'more than one image: 2, first 35, of .*11995.jpg and .*other.jpg'):
        manifest.write_manifest(twice, tmp_path)
    with pytest.raises(InputError, match=r'a.jpg and a.jpg \(the same image\)'):
        manifest.write_manifest([Image(1, 'a.jpg'), Image(1, 'a.jpg')], tmp_path / 'same')
    with pytest.raises(InputError, match=r'the id 9223372036854775808 of a.jpg does not fit in 64 bits'):
        manifest.write_manifest([Image(2**63, 'a.jpg')], tmp_path / 'large')


def test_a_disk_that_is_full_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(manifest.parquet, 'write_table', full)
    with pytest.raises(WriteError, match=r'00000.parquet cannot be written: No space left on device; .*--resume'):
        manifest.write_manifest(images(3), tmp_path)


@pytest.mark.parametrize('count', [1, 2, 3, 7])
def test_shards_are_disjoint_and_cover_all(count: int) -> None:
    shards = [{*Shard(i, count).of(images(7000))} for i in range(count)]
    assert sum(map(len, shards)) == 7000 and set.union(*shards) == {*images(7000)}
    assert all(abs(len(shard) - 7000 / count) < 5 * (7000 / count) ** 0.5 for shard in shards), 'even for ids in a row'


def test_the_hash_is_splitmix64s() -> None:
    """The generator's first outputs from state 0, by Steele, Lea and Flood: the finaliser of multiples of its gamma."""
    gamma = 0x9E3779B97F4A7C15
    outputs = [manifest.hash64(n * gamma) for n in (1, 2, 3)]
    assert outputs == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert manifest.hash64(-1) == manifest.hash64(2**64 - 1)


@pytest.mark.parametrize('text', ['', '1', '2/2', '-1/2', '0/0', 'a/b', '1/2/3'])
def test_shards_that_are_none(text: str) -> None:
    with pytest.raises(InputError, match='name i/n, with i from 0 to n - 1'):
        Shard.parse(text)
    assert str(Shard.parse('1/3')) == '1/3'


def test_what_remains(tmp_path: Path) -> None:
    ids = manifest.write_manifest(images(25_000), tmp_path)
    remaining = Remaining(ids)
    done = ids[np.random.default_rng(0).permutation(len(ids))[:9000]]
    assert remaining.finish(done).all() and remaining.count == 16_000
    todo = np.concatenate([table['id'].to_numpy() for table in remaining.of(manifest.manifest_tables(tmp_path))])
    np.testing.assert_array_equal(np.sort(todo), np.setdiff1d(ids, done))
    assert not remaining.finish(done[:10]).any() and remaining.count == 16_000
    fresh = remaining.finish(np.array([todo[0], done[0], todo[1], todo[0]]))
    np.testing.assert_array_equal(fresh, [True, False, True, False])
    assert remaining.count == 15_998
    with pytest.raises(ValueError, match='image 8 is none of this job'):
        remaining.finish(np.array([14, 8]))
    remaining.finish(todo)
    assert not remaining.count and not [*remaining.of(manifest.manifest_tables(tmp_path))]


def test_how_images_differ_from_those_that_were_written(tmp_path: Path) -> None:
    """Beyond one file, too; in another order, or with one named twice, they are the same."""
    count = 12_000
    manifest.write_manifest(images(count), tmp_path)
    listed = [*images(count)]
    assert manifest.difference(listed, tmp_path) is None
    assert manifest.difference([*listed[::-1], listed[0]], tmp_path) is None
    began = 'it began with 12000, and there are'
    new, (image_id, path) = Image(1, '/images/new.jpg'), listed[11_000]
    assert manifest.difference([new, *listed], tmp_path) == f'{began} 12001 now (/images/new.jpg is new)'
    without = [image for image in listed if image.path != path]
    assert manifest.difference(without, tmp_path) == f'{began} 11999 now ({path} is gone)'
    assert manifest.difference([*without, new], tmp_path) == f'{began} 12000 now (/images/new.jpg is new)'
    renamed = [Image(image.id, '/images/other.jpg') if image.id == image_id else image for image in listed]
    assert manifest.difference(renamed, tmp_path) == f'{began} 12000 now (/images/other.jpg has the id of {path})'
