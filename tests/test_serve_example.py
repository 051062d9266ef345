"""The server of the docs, on loopback."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from exported_files import write_model
from image_files import encoded, random_image
from tolerances import about

from iouquery_runtime import Detector

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / 'examples' / 'serve.py'
NOTED = """
    def predict(self, images):
        with open('batches.txt', 'a') as file:
            print(len(images), file=file)
        while not os.path.exists('go'):
            time.sleep(0.01)
        return super().predict(images)
"""
"""The example's server, but that it notes its batches, and that the first one waits for a file named ``go``."""

pytest.importorskip('litserve')


class Server(NamedTuple):
    folder: Path
    """Where it runs."""
    port: int
    process: subprocess.Popen

    def post(self, content: object) -> Any:
        """The answer to a request; of one that is refused, its status and what is said of it."""
        url, body = f'http://127.0.0.1:{self.port}/predict', json.dumps(content).encode()
        request = urllib.request.Request(url, body, {'Content-Type': 'application/json'})
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def is_up(self) -> bool:
        try:
            with urllib.request.urlopen(f'http://127.0.0.1:{self.port}/health', timeout=10) as answer:
                return answer.status == 200
        except (OSError, urllib.error.HTTPError):
            return False

    def batches(self) -> list[int]:
        """How many images each batch had."""
        path = self.folder / 'batches.txt'
        return [int(line) for line in path.read_text().split()] if path.exists() else []


@pytest.fixture(scope='module')
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp('server')
    write_model(folder / 'model.onnx')
    shutil.copy(EXAMPLE, folder / 'serve.py')
    text = EXAMPLE.read_text(encoding='utf-8')
    start = text.index('if __name__')
    noting = f'import os, time\nclass Noting(DetectionAPI):{NOTED}\n'
    (folder / 'noting.py').write_text(text[:start] + noting + text[start:].replace('DetectionAPI(', 'Noting('))
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    command = [sys.executable, 'noting.py', 'model.onnx', str(port)]
    with open(folder / 'log.txt', 'w') as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)
    running = Server(folder, port, process)
    try:
        deadline = time.monotonic() + 120
        while not running.is_up():
            assert process.poll() is None and time.monotonic() < deadline, (folder / 'log.txt').read_text()
            time.sleep(0.1)
        yield running
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=20)


def test_the_example_is_short() -> None:
    assert len(EXAMPLE.read_text(encoding='utf-8').splitlines()) <= 40


def test_requests_are_answered_in_batches(server: Server) -> None:
    """Each with what the detector says of its image, or refused with the error of its own."""
    files = [encoded(random_image(90 + 30 * i, 120, seed=i, blur=20), 'PNG') for i in range(6)]
    detector = Detector(server.folder / 'model.onnx')
    expected = [detector(file, score_thr=0.3).to_dict() for file in files]
    assert all(len(answer['detections']) > 1 for answer in expected) and expected[0] != expected[1]
    requests: list[object] = [{'image': base64.b64encode(file).decode()} for file in files]
    requests += [{'image': base64.b64encode(files[0][:-30]).decode()}, {'image': ''}]
    for content, message in (({'image': 'abcde'}, 'valid base64'), ({'picture': ''}, 'required'), ([1], 'valid dict')):
        status, answer = server.post(content)
        assert status == 422 and message in answer
    with ThreadPoolExecutor(len(requests)) as pool:
        answers = [pool.submit(server.post, requests[0])]
        deadline = time.monotonic() + 120
        while not server.batches():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        answers += [pool.submit(server.post, request) for request in requests[1:]]
        time.sleep(2)  # for the others to arrive while the first one is held up
        (server.folder / 'go').touch()
        *complete, cut, empty = [answer.result(timeout=120) for answer in answers]
    for answer, wanted in zip(complete, expected):
        assert answer['width'] == wanted['width']
        assert [entry['name'] for entry in answer['detections']] == [entry['name'] for entry in wanted['detections']]
        for entry, other in zip(answer['detections'], wanted['detections']):
            assert entry['box'] == pytest.approx(other['box'], abs=0.01)  # px
            assert entry['score'] == about(other['score'])
    assert (cut[0], empty[0]) == (422, 422)
    assert 'the file is cut short: the PNG has no end' in cut[1] and 'the file is empty' in empty[1]
    assert sum(server.batches()) == len(requests) and 1 < max(server.batches()) <= 8


def alive(group: int) -> list[str]:
    """The command lines of a group's processes that have not ended."""
    commands = []
    for process in Path('/proc').glob('[0-9]*'):
        with suppress(OSError):
            state, _, of_group = (process / 'stat').read_text().rpartition(')')[2].split()[:3]
            if int(of_group) == group and state != 'Z':
                commands.append((process / 'cmdline').read_text().replace('\0', ' '))
    return commands


def test_sigterm_ends_all_of_its_processes(server: Server) -> None:
    """To the one that was started alone, as process managers send it."""
    assert len(alive(server.process.pid)) > 2
    server.process.terminate()
    server.process.wait(timeout=60)
    deadline = time.monotonic() + 60
    while left := alive(server.process.pid):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)
    assert not server.is_up()
    assert 'Traceback' not in (server.folder / 'log.txt').read_text()


def test_without_a_file_it_says_how_it_is_called(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLE)],
        cwd=tmp_path,
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1 and done.stderr.splitlines()[-1].startswith('Serves a detector: python serve.py model')
    assert 'Traceback' not in done.stderr
