"""Ray Data: the only file that knows of it.

Rows (id, path) go through workers, which are actors of Ray, in blocks of one batch; rows with detections come back in
the order in which they are done. A worker that dies is started again, and its batch done again.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import shutil
import signal
import site
import socket
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..backends import num_cores
from ..command import Terminated
from ..errors import InputError, WorkersError, optional, reason
from .worker import IN_FLIGHT, Detecting, Opener, Reading

if TYPE_CHECKING:
    from pyarrow import Table

    from .sources import Root

BLOCKS = 10_000
"""Batches of one round. Ray Data keeps some 2 kB of each until a round ends, so that rounds bound the memory of this
process; workers open the model anew for each."""
_CUT = 64  # batches of paths that are cut ahead; Ray's own 2 would leave the workers of a small model waiting
_READERS = 1  # CPUs beside those of the workers, for what cuts the manifest into batches
_STORE = 256 << 20  # bytes of Ray's object store for paths and detections; Ray takes 30 % of the memory by itself
_STORE_OF_PIXELS = 2 << 30
_QUIET = {
    'RAY_BACKEND_LOG_LEVEL': 'fatal',
    'RAY_DATA_DISABLE_PROGRESS_BARS': '1',
    'RAY_DEDUP_LOGS_SKIP_REGEX': '.*',  # what it says on standard output of workers that died
    'RAY_USAGE_STATS_ENABLED': '0',
    'RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO': '0',
    # on a machine that is busy with other things. Ray takes a node for dead that has not answered for 25 s, and this
    # process ends, without a word, with the node that it is on
    'RAY_raylet_start_wait_time_s': '240',
    'RAY_health_check_timeout_ms': '300000',
    'RAY_health_check_failure_threshold': '10',
    'RAY_gcs_rpc_server_reconnect_timeout_s': '600',
}
_SECONDS_TO_ANSWER = 5
_SECONDS_TO_END = 60
# RFC 9113, 3.4: what a client begins with, and the type of the frame that a server answers with. Ray's head is one of
# gRPC, over HTTP/2; given any other server, Ray tries for two minutes and ends the process.
_HTTP2_GREETING = b'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n' + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
_HTTP2_SETTINGS = b'\x04'


class Size(NamedTuple):
    """Of the pool of workers."""

    workers: int = 0
    """0: as many as fit."""
    threads: int = 1
    """CPUs of each."""
    gpus: int = 0
    """GPUs of each: 0, or 1, and then CPUs read and decode for them."""
    batch_size: int = 8


def check_address(address: str) -> None:
    """Find out within seconds whether a cluster answers.

    Raises:
        InputError: none does, or Ray is not installed.
    """
    load_ray()
    if address.startswith('ray://'):
        raise InputError(
            f'--address {address}: start the command on a machine of the cluster, with --address auto (or hand it in '
            'by `ray job submit`); a client of Ray cannot stream rows'
        )
    if address == 'auto':
        return  # ray.init looks for a process on this machine, and says at once that there is none
    match = re.fullmatch(r'\[?([^\[\]]+)\]?:(\d+)', address)
    if not match:
        raise InputError(
            f'--address {address}: name auto, or HOST:PORT of the head of a cluster, such as 10.0.0.1:6379'
        )
    try:
        with socket.create_connection((match[1], int(match[2])), timeout=_SECONDS_TO_ANSWER) as connection:
            connection.sendall(_HTTP2_GREETING)
            answer = connection.recv(9)
    except (OSError, OverflowError) as error:
        raise _no_cluster(address) from error
    if answer[3:4] != _HTTP2_SETTINGS:
        raise _no_cluster(address)


@contextlib.contextmanager
def session(address: str | None, size: Size, job: Path) -> Iterator[Size]:
    """Ray on this machine alone, which is gone at the end, or the cluster at ``address``.

    Args:
        address: 'auto', HOST:PORT, or None.
        size: that is asked for.
        job: the folder of the job, which nobody else works on.

    Returns:
        The size, with the number of workers.

    Raises:
        InputError: there is no cluster, or it is too small.
        WorkersError: Ray does not start.
    """
    ray, folder = load_ray(), None if address else _runtime_folder(job)
    options: dict[str, Any] = dict(log_to_driver=False, logging_level=logging.CRITICAL)
    if address:
        options.update(address=address)
    else:
        options.update(address='local')  # whatever RAY_ADDRESS says
        cpus = os.cpu_count() or 1 if size.gpus else (size.workers or fitting(None, size)) * size.threads + _READERS
        store = _STORE_OF_PIXELS if size.gpus else _STORE
        options.update(num_cpus=cpus, include_dashboard=False, object_store_memory=store, _temp_dir=str(folder))
    try:
        with _own_signals(), _importable_by_workers(), _no_stderr(), warnings.catch_warnings():
            warnings.simplefilter('ignore')
            try:
                ray.init(**options)
            except ConnectionError as error:
                raise _no_cluster(address or 'auto') from error
            except (RuntimeError, ValueError, OSError) as error:
                raise WorkersError(
                    f'Ray does not start: {reason(error)}; `ray start --head` tells more, and `ray stop` ends it'
                ) from error
        size = size._replace(workers=size.workers or fitting(address, size))
        _check_resources(ray.cluster_resources(), size, address)
        yield size
    finally:
        with _own_signals():
            ray.shutdown()
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


def fitting(address: str | None, size: Size) -> int:
    """How many workers there is room for, at least 1; for GPUs and clusters, in a :func:`session`."""
    import ray

    resources = ray.cluster_resources() if ray.is_initialized() else {}
    if size.gpus:
        return max(1, int(resources.get('GPU', 1)) // size.gpus)
    cpus = int(resources.get('CPU', 1)) - _READERS if address else num_cores()
    return max(1, cpus // size.threads)


def detect(tables: Iterable[Table], opener: Opener, root: Root, size: Size) -> Generator[Table, None, None]:
    """Rows (id, path) to rows of :data:`~.parts.COLUMNS`, in a :func:`session`, before whose end it is to be closed.

    Args:
        tables: of some 10,000 rows each; a few are read ahead.
        opener: of the detector.
        root: where paths begin.
        size: of the pool.

    Raises:
        InputError: the detector cannot be opened in a worker.
        WorkersError: workers fail whatever they are given, or the cluster is gone.
    """
    ray = load_ray()
    attempts = _RayAttempts(ray.remote(num_cpus=0)(_Counts).remote())
    with _ending_threads():
        pool: list[Any] = []
        rows = 0
        for table in tables:
            pool.append(ray.put(table))
            rows += table.num_rows
            if rows >= BLOCKS * size.batch_size:
                yield from _round(pool, opener, root, size, attempts)
                pool, rows = [], 0
        if pool:
            yield from _round(pool, opener, root, size, attempts)


def _round(refs: list[Any], opener: Opener, root: Root, size: Size, attempts: _RayAttempts) -> Iterator[Table]:
    import ray.data

    _quieten()
    arguments: dict[str, Any] = dict(fn_constructor_args=(opener, root, attempts), batch_format='pyarrow')
    rows = ray.data.from_arrow_refs(refs).repartition(target_num_rows_per_block=size.batch_size)
    if _is_staged(size):
        decoders = _pool(1, _decoders(ray.cluster_resources(), size))
        rows = rows.map_batches(Reading, compute=decoders, num_cpus=1, **arguments)
    rows = rows.map_batches(
        Detecting,
        compute=_pool(size.workers, size.workers),
        num_cpus=size.threads,
        num_gpus=size.gpus or None,
        batch_size=size.batch_size if _is_staged(size) else None,
        **arguments,
    )
    try:
        yield from rows.iter_batches(batch_size=None, batch_format='pyarrow', prefetch_batches=0)
    except Exception as error:  # Ray's errors have no base of their own, and are also of the class of their cause
        raise _stop_behind(error) or _cause(error, attempts) from error


def _pool(fewest: int, most: int) -> Any:
    from ray.data import ActorPoolStrategy

    return ActorPoolStrategy(min_size=fewest, max_size=most, max_tasks_in_flight_per_actor=IN_FLIGHT)


def _is_staged(size: Size) -> bool:
    """Whether CPUs read and decode for the workers, so that these do not wait; otherwise pixels do not travel."""
    return size.gpus > 0


class _Counts:
    """Runs as an actor of Ray, which outlives workers."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._failure: InputError | None = None

    def begin(self, key: str) -> int:
        self._counts[key] += 1
        return self._counts[key]

    def end(self, keys: tuple[str, ...]) -> None:
        for key in keys:
            self._counts.pop(key, None)

    def give_up(self, error: InputError) -> None:
        self._failure = self._failure or error

    def failure(self) -> InputError | None:
        return self._failure


class _RayAttempts:
    """:class:`~.worker.Attempts` of an actor."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def was_started_again(self) -> bool:
        import ray

        return ray.get_runtime_context().was_current_actor_reconstructed

    def begin(self, key: str) -> int:
        import ray

        return ray.get(self._actor.begin.remote(key))

    def end(self, *keys: str) -> None:
        self._actor.end.remote(keys)

    def give_up(self, error: InputError) -> None:
        import ray

        ray.get(self._actor.give_up.remote(error))

    def failure(self) -> InputError | None:
        """Why a worker has given up."""
        import ray

        return ray.get(self._actor.failure.remote())


def load_ray() -> Any:
    """Ray, imported with what keeps it quiet, which it reads as it is imported.

    Raises:
        InputError: it is not installed.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    return optional('ray', 'detecting at scale', "'mmdet-iouquery[scale]'")


def _runtime_folder(job: Path) -> Path:
    """For Ray's sockets and logs. What a process left there that was killed is removed.

    The name is short, as that of a socket has 107 bytes at most.
    """
    base = tempfile.gettempdir() if len(tempfile.gettempdir()) < 30 or not os.path.isdir('/tmp') else '/tmp'
    name = hashlib.blake2b(str(job.resolve()).encode(), digest_size=5).hexdigest()
    folder = Path(base, f'iouquery-{os.getuid() if hasattr(os, "getuid") else ""}-{name}')
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    return folder


def _quieten() -> None:
    """Ray Data's own bars and reports, which would run through ours."""
    from ray.data import DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context._max_num_blocks_in_streaming_gen_buffer = _CUT  # it has no public name
    for name in ('ray', 'ray.data'):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


def _no_cluster(address: str) -> InputError:
    return InputError(
        f'--address {address}: no cluster of Ray answers there; start one with `ray start --head`, or leave --address '
        'out to work on this machine alone'
    )


def _check_resources(resources: dict[str, float], size: Size, address: str | None) -> None:
    where = f'the cluster at {address}' if address else 'this machine'
    cpus, gpus = int(resources.get('CPU', 0)), int(resources.get('GPU', 0))
    needed = size.workers * size.threads + _READERS
    if cpus < needed:
        raise InputError(
            f'--workers {size.workers} of --threads {size.threads}, and what reads for them, need {needed} CPUs, and '
            f'{where} has {cpus}; take fewer'
        )
    if gpus < size.workers * size.gpus:
        raise InputError(
            f'--workers {size.workers} need a GPU each, and {where} has {gpus or "none"}; take fewer, or '
            '--gpus-per-worker 0'
        )


def _decoders(resources: dict[str, float], size: Size) -> int:
    return max(1, int(resources.get('CPU', 1)) - size.workers * size.threads - _READERS)


def _stop_behind(error: BaseException | None) -> BaseException | None:
    """The signal that interrupted Ray's own code, which may raise another error for it; None: there was none."""
    while error is not None and not isinstance(error, (KeyboardInterrupt, Terminated)):
        error = error.__cause__ or error.__context__
    return error


def _cause(error: Exception, attempts: _RayAttempts) -> InputError:
    """What went wrong, as the worker has said it, or as Ray does."""
    try:
        failure = attempts.failure()
    except Exception:  # whatever it is, the cluster is gone, which the first error tells
        failure = None
    return failure or WorkersError(f'the workers cannot go on: {reason(error)}; --resume does what is missing')


@contextlib.contextmanager
def _importable_by_workers() -> Iterator[None]:
    """Processes that are started find this package where this one did, also where it is not installed."""
    folder, before = str(Path(__file__).resolve().parents[2]), os.environ.get('PYTHONPATH')
    if folder in (*site.getsitepackages(), site.getusersitepackages()):
        yield
        return
    os.environ['PYTHONPATH'] = folder if before is None else f'{folder}{os.pathsep}{before}'
    try:
        yield
    finally:
        os.environ.pop('PYTHONPATH')
        os.environ.update({} if before is None else {'PYTHONPATH': before})


@contextlib.contextmanager
def _no_stderr() -> Iterator[None]:
    """Ray's libraries say there that they say no more."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, 'wb') as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


@contextlib.contextmanager
def _ending_threads() -> Iterator[None]:
    """Wait at the end for the threads of Ray Data, which itself waits for two seconds, soon over on a busy machine.

    One that asks for anything after Ray's shutdown ends the process, with status 1 and without a word.
    """
    before = set(threading.enumerate())
    try:
        yield
    finally:
        until = time.monotonic() + _SECONDS_TO_END
        for thread in set(threading.enumerate()) - before:
            if thread.name != 'Prefetcher':  # sleeps for ever, as nothing is prefetched
                thread.join(max(0.0, until - time.monotonic()))


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Ray has SIGTERM raise ``SystemExit``; what was to be done on it is done in its place, at the end, and stays.

    That it came is known by Python's wake-up descriptor, also where Ray's own code swallows the exit.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # Python sets handlers in the main thread only
        return
    before, ray_exit = signal.getsignal(signal.SIGTERM) or signal.SIG_DFL, None
    received, wakeup = socket.socketpair()
    with received, wakeup:
        wakeup.setblocking(False)
        wakeup_before = signal.set_wakeup_fd(wakeup.fileno(), warn_on_full_buffer=False)
        try:
            yield
        except SystemExit as error:
            ray_exit = error
        finally:
            signal.signal(signal.SIGTERM, before)
            signal.set_wakeup_fd(wakeup_before)
        wakeup.close()
        if signal.SIGTERM in received.recv(4096):
            signal.raise_signal(signal.SIGTERM)
    if ray_exit:
        raise ray_exit
