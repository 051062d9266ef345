"""What ``--images`` names: a folder, a pattern, a manifest in parquet or an annotation file, here or in a store.

Images are listed as a stream of (id, path): no list of all of them is ever held. A path is one of this machine's, made
absolute, or a URI.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ..command import SUFFIXES
from ..errors import InputError, reason
from .annotation_file import Reader, categories, image_folder, images
from .filesystems import iterate_files, resolve

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

_WILD = re.compile(r'[*?[]')
ID_RANGE = 1 << 63


class Image(NamedTuple):
    """One image of a job."""

    id: int
    """In [-2^63, 2^63); of a path that has none, its hash."""
    path: str


class Root(NamedTuple):
    """A folder that paths begin in."""

    uri: str
    """As it stands in paths: absolute, or a URI, without its options and a last slash."""
    filesystem: FileSystem
    path: str
    """In the file system, without a last slash."""

    @classmethod
    def of(cls, uri: str) -> Root:
        """A folder; whether it is there is not asked.

        Raises:
            InputError: see :func:`~iouquery_runtime.jobs.filesystems.resolve`.
        """
        filesystem, path = resolve(uri)
        if filesystem.type_name == 'local':
            uri = path = os.path.abspath(path)
        return cls(uri.partition('?')[0].rstrip('/'), filesystem, path.rstrip('/'))

    def joined(self, path: str) -> str:
        """A path as it is recorded; one that is absolute or a URI stays as it is."""
        return path if '://' in path or path.startswith('/') else f'{self.uri}/{path}'

    def recorded(self, path: str) -> str:
        """The record of a path in the file system."""
        return self.uri + path[len(self.path) :]

    def located(self, recorded: str) -> tuple[FileSystem, str]:
        """Where to read what is recorded."""
        if recorded.startswith(f'{self.uri}/'):
            return self.filesystem, self.path + recorded[len(self.uri) :]
        return resolve(recorded)


class Source:
    """Images by what ``--images`` says.

    Args:
        images: a folder, with all below it; a pattern with ``*``, ``**``, ``?`` or ``[...]``; an image; a manifest,
            ``.parquet`` with a column ``path`` and maybe ``id``; an annotation file, ``.json`` in COCO's form.
        root: where relative paths in a manifest or annotation file begin; None: in the file's own folder, or, where
            the first image is not there, in the ``info.image_folder`` of an annotation file.

    Raises:
        InputError: there is nothing there, or it cannot be reached.
    """

    def __init__(self, images: str, root: str | None = None) -> None:
        self.images = images
        if not images:
            raise InputError('--images is empty; name a folder, a pattern, a manifest or an annotation file')
        filesystem, self._path = resolve(images)
        self._filesystem, self._pattern = filesystem, None
        path, options = images.partition('?')[0] if '://' in images else images, _options(images)
        if not _exists(filesystem, self._path) and _WILD.search(path):
            self.kind = 'manifest' if path.endswith('.parquet') else 'pattern'
            fixed = path[: _WILD.search(path).start()].rpartition('/')[0]  # type: ignore[union-attr]
            self.root = Root.of((fixed or ('/' if path.startswith('/') else '.')) + options)
            self._pattern = _regex(path[len(fixed) + 1 :] if fixed or path.startswith('/') else path)
        else:
            self.kind = _kind(filesystem, self._path, images)
            self.root = Root.of(images if self.kind == 'folder' else (os.path.dirname(path) or '.') + options)
        self._of_file = self.root
        if root is not None:
            if self.kind not in ('manifest', 'annotations'):
                raise InputError(
                    f'--root is for the paths in a manifest or annotation file, which {images} is not: leave --root out'
                )
            self.root = Root.of(root)
        elif self.kind == 'annotations':
            self.root = self._root_of_annotations()

    def __iter__(self) -> Iterator[Image]:
        """All images, in an order that is the same each time.

        Raises:
            InputError: there are none; the file is not as it should be.
        """
        rows = {'manifest': self._of_manifest, 'annotations': self._of_annotations}.get(self.kind, self._of_files)()
        empty = True
        for row in rows:
            empty = False
            yield row
        if empty:
            raise InputError(self._no_images())

    def has_ids(self) -> bool:
        """Whether the ids are those of the file, not of the paths."""
        if self.kind != 'manifest':
            return self.kind == 'annotations'
        path = next(self._manifests())
        with _parquet(self._filesystem, path) as file:
            return 'id' in file.schema_arrow.names

    def category_ids(self, names: Sequence[str]) -> list[int] | None:
        """The annotation file's ids by label; None where it is another source, or names no categories.

        Raises:
            InputError: the file names categories and lacks one of ``names``.
        """
        if self.kind != 'annotations':
            return None
        with self._filesystem.open_input_stream(self._path) as file:
            ids = categories(Reader(file, self.images))
        unknown = [name for name in names if name not in ids]
        if ids and unknown:
            raise InputError(
                f'the model finds {unknown[0]!r}, which the categories of {self.images} do not name; take the '
                'annotation file of the classes that the model was trained on, or leave coco out of --format'
            )
        return [ids[name] for name in names] if ids else None

    def _of_files(self) -> Iterator[Image]:
        if self.kind == 'file':
            recorded = self.root.joined(os.path.basename(self._path))
            yield Image(path_id(recorded), recorded)
            return
        for path in iterate_files(self._filesystem, self.root.path or '/'):
            inside = path[len(self.root.path) + 1 :]
            wanted = self._pattern.fullmatch(inside) if self._pattern else _is_image(path)
            if wanted:
                recorded = self.root.recorded(path)
                yield Image(path_id(recorded), recorded)

    def _of_annotations(self) -> Iterator[Image]:
        with self._filesystem.open_input_stream(self._path) as file:
            for image_id, name in images(Reader(file, self.images)):
                yield Image(image_id, self.root.joined(name))

    def _root_of_annotations(self) -> Root:
        with self._filesystem.open_input_stream(self._path) as file:
            folder = image_folder(Reader(file, self.images))
        first = next(self._of_annotations(), None) if os.path.isabs(folder) else None
        return self.root if first is None or _exists(*self.root.located(first.path)) else Root.of(folder)

    def _of_manifest(self) -> Iterator[Image]:
        for path in self._manifests():
            yield from _manifest_rows(self._filesystem, path, self.root)

    def _manifests(self) -> Iterator[str]:
        if self._pattern is None:
            yield self._path
            return
        for path in iterate_files(self._filesystem, self._of_file.path or '/'):
            if self._pattern.fullmatch(path[len(self._of_file.path) + 1 :]):
                yield path

    def _no_images(self) -> str:
        if self.kind == 'folder':
            kinds = ', '.join(sorted(SUFFIXES))
            return f'the folder {self.images} has no images ({kinds}) in it or below it; name another'
        if self.kind == 'pattern' or _WILD.search(self.images):
            return f'the pattern {self.images} matches no file; put it in quotes, and ** for folders at any depth'
        return f'{self.images} names no images; name another file'


def path_id(path: str) -> int:
    """63 bits of the path's BLAKE2b hash: two of 10^9 paths are the same with a probability of 0.05."""
    return int.from_bytes(hashlib.blake2b(path.encode('utf-8', 'surrogateescape'), digest_size=8).digest(), 'big') >> 1


def _kind(filesystem: FileSystem, path: str, name: str) -> str:
    from pyarrow.fs import FileType

    kind = filesystem.get_file_info(path.rstrip('/') or '/').type
    if kind == FileType.Directory:
        return 'folder'
    if kind == FileType.NotFound:
        raise InputError(f'there is no file or folder {name}; name a folder, a pattern, a .parquet or a .json file')
    suffix = os.path.splitext(path)[1].lower()
    return {'.parquet': 'manifest', '.json': 'annotations'}.get(suffix, 'file')


def _exists(filesystem: FileSystem, path: str) -> bool:
    from pyarrow.fs import FileType

    return filesystem.get_file_info(path.rstrip('/') or '/').type != FileType.NotFound


def _options(uri: str) -> str:
    return '?' + uri.partition('?')[2] if '://' in uri and '?' in uri else ''


def _is_image(path: str) -> bool:
    return os.path.splitext(path)[1].lower() in SUFFIXES


def _regex(pattern: str) -> re.Pattern[str]:
    """A pattern of the shell: ``*`` and ``?`` stay within a folder, ``**/`` goes through any number of them."""
    parts = []
    for piece in re.findall(r'\*\*/|\*\*|\*|\?|\[!?\]?[^\]]*\]|.', pattern, re.DOTALL):
        if piece.startswith('[') and len(piece) > 1:
            inside = piece[1:-1].replace('\\', '\\\\')
            parts.append(f'[^{inside[1:]}]' if inside.startswith('!') else f'[{inside}]')
        else:
            wild = {'**/': '(?:.*/)?', '**': '.*', '*': '[^/]*', '?': '[^/]'}
            parts.append(wild.get(piece) or re.escape(piece))
    return re.compile(''.join(parts), re.DOTALL)


def _manifest_rows(filesystem: FileSystem, path: str, root: Root) -> Iterator[Image]:
    import pyarrow as pa

    with _parquet(filesystem, path) as file:
        _check_columns(file.schema_arrow, path)
        columns = [name for name in ('id', 'path') if name in file.schema_arrow.names]
        for batch in file.iter_batches(batch_size=10_000, columns=columns):
            if any(batch.column(name).null_count for name in columns):
                raise InputError(f'{path} has rows without {" or ".join(columns)}; fill them in, or leave them out')
            recorded = [root.joined(name) for name in batch.column('path').cast(pa.string()).to_pylist()]
            ids = batch.column('id').to_pylist() if 'id' in columns else map(path_id, recorded)
            yield from map(Image, ids, recorded)


def _parquet(filesystem: FileSystem, path: str) -> Any:
    from pyarrow import parquet

    try:
        return parquet.ParquetFile(filesystem.open_input_file(path))
    except (OSError, ValueError) as error:
        raise InputError(f'{path} is not a parquet file that can be read: {reason(error)}; write it again') from error


def _check_columns(schema: Any, path: str) -> None:
    import pyarrow as pa

    kinds = dict(zip(schema.names, schema.types))
    if 'path' not in kinds:
        raise InputError(
            f"{path} has the columns {', '.join(kinds)} and no 'path'; name the column of paths 'path', and one of "
            "ids, if there is one, 'id'"
        )
    if not (pa.types.is_string(kinds['path']) or pa.types.is_large_string(kinds['path'])):
        raise InputError(f"the column 'path' of {path} is {kinds['path']}; it must be text")
    if 'id' in kinds and (not pa.types.is_integer(kinds['id']) or kinds['id'] == pa.uint64()):
        raise InputError(f"the column 'id' of {path} is {kinds['id']}; it must be int64, or left out")
