"""S3 on 127.0.0.1, behind a door that fails now and then: moto's server, and a proxy before it."""

from __future__ import annotations

import http.client
import http.server
import random
import socket
import struct
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

FAULTS = ('503', 'reset', 'cut')
"""An answer of 503; a connection that is reset; a body that ends in its middle (where there is none: a reset). Beside
these there is ``'403'``."""
SLOW_DOWN = b'<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>'


class Door(http.server.ThreadingHTTPServer):
    """Passes requests on to a server, or meets them with a fault."""

    daemon_threads = True

    def __init__(self, server: tuple[str, int]) -> None:
        super().__init__(('127.0.0.1', 0), _Handler)
        self.behind = server
        self.planned: deque[str | None] = deque()
        """Faults of the next requests; None: it is passed on."""
        self.rate, self.random = 0.0, random.Random(0)
        """Share of requests that meet a fault when none are planned."""
        self.requests: list[tuple[str, str, str | None]] = []
        """Method, path and fault of each."""

    @property
    def endpoint(self) -> str:
        return f'127.0.0.1:{self.server_address[1]}'

    def next_fault(self) -> str | None:
        if self.planned:
            return self.planned.popleft()
        return self.random.choice(FAULTS) if self.random.random() < self.rate else None

    def clear(self) -> None:
        self.planned.clear()
        self.requests.clear()
        self.rate = 0.0


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    server: Any

    def log_message(self, *args: object) -> None:
        pass

    def pass_on(self) -> None:
        sent = self.rfile.read(int(self.headers.get('Content-Length') or 0))
        fault = self.server.next_fault()
        self.server.requests.append((self.command, self.path, fault))
        if fault in ('503', '403'):
            self._answer(int(fault), {}, SLOW_DOWN if fault == '503' else b'')
            return
        host, port = self.server.behind
        connection = http.client.HTTPConnection(host, port, timeout=60)
        connection.request(self.command, self.path, sent, dict(self.headers))
        response = connection.getresponse()
        body = response.read()
        if fault == 'reset' or (fault and not body):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
            self.connection.close()
            self.close_connection = True
            return
        self._answer(response.status, dict(response.getheaders()), body, cut=fault == 'cut')

    def _answer(self, status: int, headers: Mapping[str, str], body: bytes, cut: bool = False) -> None:
        own = {'transfer-encoding', 'connection', 'server', 'date', 'content-length'}
        lengths = [value for name, value in headers.items() if name.lower() == 'content-length']
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in own:
                self.send_header(name, value)
        self.send_header('Content-Length', lengths[0] if lengths else str(len(body)))
        self.end_headers()
        if self.command != 'HEAD':
            self.wfile.write(body[: len(body) // 2] if cut else body)
        if cut:
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = pass_on  # noqa: N815  named by http.server


@contextmanager
def s3_server() -> Iterator[Door]:
    """A server without buckets, and its door."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer('127.0.0.1', 0, verbose=False)
    server.start()
    door = Door(server.get_host_and_port())
    threading.Thread(target=door.serve_forever, daemon=True).start()
    try:
        yield door
    finally:
        door.shutdown()
        door.server_close()
        server.stop()


def fill(bucket: str, files: Mapping[str, bytes]) -> None:
    """Make a bucket with these files, past the door."""
    from moto.core import DEFAULT_ACCOUNT_ID
    from moto.s3.models import s3_backends

    backend = s3_backends[DEFAULT_ACCOUNT_ID]['aws']
    backend.create_bucket(bucket, 'us-east-1')
    for key, content in files.items():
        backend.put_object(bucket, key, content)
