"""Files on a disk, in S3 and its kin, through pyarrow's file systems.

A URI of S3 is ``s3://BUCKET/KEY?OPTION=VALUE&...``, the key as it stands, without percent-encoding. Options are
arguments of ``pyarrow.fs.S3FileSystem``, those in ``_S3_OPTIONS``. Without ``endpoint_override``,
``AWS_ENDPOINT_URL_S3`` or ``AWS_ENDPOINT_URL`` of the environment counts. Credentials come from where the AWS tools
look for them, never from the URI.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qsl

from ..errors import InputError, optional

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

T = TypeVar('T')

PAUSES = (0.5, 2.0, 6.0)
"""Seconds between the attempts to read, each of which has three of S3's own client within."""

_SCHEMES = ('s3', 'gs', 'gcs', 'abfs', 'abfss', 'hdfs', 'viewfs', 'file')
_OBJECT_STORES = ('s3', 'gcs', 'abfs')  # by pyarrow's names of types
_S3_OPTIONS: dict[str, Callable[[str], Any]] = {
    **dict.fromkeys(('region', 'endpoint_override', 'scheme', 'role_arn', 'session_name', 'external_id'), str),
    'tls_ca_file_path': str,
    **dict.fromkeys(('anonymous', 'force_virtual_addressing'), lambda text: text.lower() in ('true', '1')),
}
_GCS_RETRIES = 10  # seconds; its client's own are 900
_PASSING = re.compile(
    'NETWORK_CONNECTION|INTERNAL_FAILURE|SERVICE_UNAVAILABLE|SLOW_DOWN|THROTTLING|REQUEST_TIMEOUT|'  # of AWS
    r'HTTP status (?:5\d\d|429)|UNAVAILABLE|DEADLINE_EXCEEDED|RESOURCE_EXHAUSTED|'  # of Google
    'is cut short|[Tt]imed? ?out|[Cc]onnection (?:reset|refused)|Stale file handle'
)
_REFUSED = re.compile(
    'ACCESS_DENIED|INVALID_ACCESS_KEY_ID|SIGNATURE_DOES_NOT_MATCH|EXPIRED_TOKEN|ExpiredToken|UNRECOGNIZED_CLIENT|'
    r'HTTP status 40[13]|PERMISSION_DENIED|UNAUTHENTICATED'
)


def resolve(uri: str) -> tuple[FileSystem, str]:
    """The file system of a URI, and the path in it. A plain path is one of this machine's disk.

    Whether there is anything at the path is not asked; whether there is the bucket is, once a process.

    Raises:
        InputError: an unknown scheme or option; a bucket that is not there, or is refused; no answer; credentials in
            the URI; pyarrow is missing.
    """
    arrow = _arrow(uri)
    if '://' not in uri:
        return arrow.LocalFileSystem(), uri
    scheme, address = uri.split('://', 1)
    if scheme not in _SCHEMES:
        raise InputError(f'{uri}: there is no file system for {scheme}://; name one of {", ".join(_SCHEMES)}')
    location, _, query = address.partition('?')
    bucket = location.split('/', 1)[0]
    if '@' in bucket and ':' in bucket.rpartition('@')[0]:
        raise InputError(
            f'{scheme}://...@{bucket.rpartition("@")[2]}: credentials do not belong into a URI, which is written down; '
            'set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or what your store goes by'
        )
    if not bucket and scheme in ('s3', 'gs', 'gcs'):
        raise InputError(f'{uri!r} names no bucket; write {scheme}://BUCKET/FOLDER')
    if scheme == 's3':
        return _s3(bucket, query, os.environ.get('AWS_ENDPOINT_URL_S3') or os.environ.get('AWS_ENDPOINT_URL')), location
    if scheme in ('gs', 'gcs') and 'retry_limit_seconds' not in query:
        uri += f'{"&" if query else "?"}retry_limit_seconds={_GCS_RETRIES}'
    try:
        filesystem, path = arrow.FileSystem.from_uri(uri)
    except (OSError, ValueError) as error:
        raise InputError(f'{uri} cannot be opened: {_first_line(error)}; check the URI') from error
    if filesystem.type_name in _OBJECT_STORES:
        _check_bucket(filesystem, path.split('/', 1)[0])
    return filesystem, path


def read_bytes(filesystem: FileSystem, path: str) -> bytes:
    """The content of a file.

    Faults that pass (answers of 5xx, connections that are reset, files that come cut short) are met by reading again,
    after growing pauses.

    Raises:
        InputError: the file is not there, is refused, or could not be read in ``len(PAUSES) + 1`` attempts.
    """

    def read() -> bytes:
        with filesystem.open_input_file(path) as file:
            size, data = file.size(), file.read()
        if len(data) != size:
            raise OSError(f'the file is cut short: {len(data)} of {size} bytes')
        return data

    return _with_retries(read, path)


def iterate_files(filesystem: FileSystem, folder: str) -> Iterator[str]:
    """The paths of all files in a folder and those below it, in sorted order: a folder's own, then each subfolder's.

    One folder's own list is held at a time, some 330 bytes a file. Passed over are a folder that links to one that it
    lies in, and links to what is gone.

    Raises:
        InputError: there is no such folder, or a folder is refused.
    """
    yield from _files_below(filesystem, folder, ())


def _files_below(filesystem: FileSystem, folder: str, above: tuple[str, ...]) -> Iterator[str]:
    arrow = _arrow(folder)
    if filesystem.type_name == 'local':
        real = os.path.realpath(folder)
        if real in above:
            return
        above = (*above, real)
    entries = _with_retries(lambda: filesystem.get_file_info(arrow.FileSelector(folder)), folder)
    folders = sorted(entry.path for entry in entries if entry.type == arrow.FileType.Directory)
    yield from sorted(entry.path for entry in entries if entry.type != arrow.FileType.Directory)
    del entries
    for subfolder in folders:
        yield from _files_below(filesystem, subfolder, above)


@lru_cache(maxsize=64)
def _s3(bucket: str, query: str, endpoint: str | None) -> FileSystem:
    """Of a bucket that answers."""
    arrow, options = _arrow('s3://'), _s3_options(bucket, query)
    if endpoint and 'endpoint_override' not in options:
        scheme, _, host = endpoint.rpartition('://')
        options['endpoint_override'] = host.rstrip('/')
        options.setdefault('scheme', scheme or 'https')
    try:
        if 'region' not in options and 'endpoint_override' not in options:
            options['region'] = arrow.resolve_s3_region(bucket)
        # by its constructor: from_uri() has a client that tries for six seconds to connect, whatever the reason
        filesystem = arrow.S3FileSystem(**options)
    except (OSError, ValueError, TypeError) as error:
        raise _unopened(bucket, error) from error
    _check_bucket(filesystem, bucket)
    return filesystem


def _s3_options(bucket: str, query: str) -> dict[str, Any]:
    given = dict(parse_qsl(query, keep_blank_values=True))
    unknown = [name for name in given if name not in _S3_OPTIONS]
    if unknown:
        raise InputError(f's3://{bucket}?...: unknown option {unknown[0]!r}; name one of {", ".join(_S3_OPTIONS)}')
    return {name: _S3_OPTIONS[name](value) for name, value in given.items()}


def _check_bucket(filesystem: FileSystem, bucket: str) -> None:
    arrow = _arrow(bucket)
    try:
        exists = filesystem.get_file_info(bucket).type != arrow.FileType.NotFound
    except (OSError, ValueError) as error:
        raise _unopened(bucket, error) from error
    if not exists:
        raise InputError(f'there is no bucket {bucket!r}; check its name, region and endpoint')


def _unopened(bucket: str, error: Exception) -> InputError:
    if _REFUSED.search(str(error)):
        return InputError(f'the bucket {bucket!r} refuses access: {_first_line(error)}; {_credentials_hint()}')
    return InputError(
        f'the bucket {bucket!r} cannot be reached: {_first_line(error)}; check its name, region and endpoint, and the '
        'network'
    )


def _credentials_hint() -> str:
    given = ('AWS_ACCESS_KEY_ID', 'AWS_PROFILE', 'AWS_WEB_IDENTITY_TOKEN_FILE', 'AWS_CONTAINER_CREDENTIALS_FULL_URI')
    file = Path(os.environ.get('AWS_SHARED_CREDENTIALS_FILE', '~/.aws/credentials')).expanduser()
    if any(os.environ.get(name) for name in given) or file.is_file():
        return 'the credentials that were found do not allow it: use others'
    return (
        'no credentials were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or write ~/.aws/credentials; a '
        'public bucket is read with ?anonymous=true'
    )


def _with_retries(call: Callable[[], T], path: str) -> T:
    for pause in (*PAUSES, None):
        try:
            return call()
        except (OSError, ValueError) as error:  # pyarrow's own are of these
            if pause is None or not _PASSING.search(str(error)):
                raise _unread(path, error, len(PAUSES) + 1 if pause is None else 1) from error
            time.sleep(pause)
    raise AssertionError('unreachable')


def _unread(path: str, error: Exception, attempts: int) -> InputError:
    if isinstance(error, FileNotFoundError):
        return InputError(f'there is no file or folder {path}; correct the path')
    if _REFUSED.search(str(error)):
        return InputError(f'{path} is refused: {_first_line(error)}; {_credentials_hint()}')
    why = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else _first_line(error)
    return InputError(
        f'{path} cannot be read{f" in {attempts} attempts" if attempts > 1 else ""}: {why}; check the file, and for a '
        'bucket the network'
    )


def _first_line(error: Exception) -> str:
    """What pyarrow's error says; later lines are places in its code, or the same again for each library tried."""
    line = (str(error).splitlines() or [type(error).__name__])[0]
    return re.sub('^When .*?: (?=AWS Error)', '', line).removesuffix(': No response body.').rstrip('!.: ')


def _arrow(purpose: str) -> Any:
    return optional('pyarrow.fs', f'reading {purpose}', 'pyarrow')
