"""The page in a browser, as a person uses it: an image goes in, boxes come out, and bad input gets a sentence."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmdet_iouquery.apps.analyze.trace import QueryTrace
from mmdet_iouquery.apps.demo.overlay import RESULT, detections, stages
from mmdet_iouquery.apps.demo.session import DemoModel, found_checkpoints

pytest.importorskip('gradio', reason="the page needs gradio: pip install 'gradio>=6'")
webdriver = pytest.importorskip('selenium.webdriver', reason='driving a browser needs selenium: pip install selenium')
from selenium.common.exceptions import WebDriverException  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

TOOL = Path(__file__).parents[3] / 'tools' / 'demo.py'
CHROMIUM = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
DRIVER = shutil.which('chromedriver')
pytestmark = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None, reason='no Chromium with its driver; on Debian: apt install chromium-driver'
)
PATIENCE = 120  # s, for a machine that does much else


def wait_for(condition: Callable[[], Any], what: str) -> Any:
    """The condition's value as soon as it is true."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            value = condition()
        # an element that isn't there yet, or no more; a server that isn't up; a file that is just being written
        except (WebDriverException, OSError, HTTPException):
            value = None
        if value:
            return value
        time.sleep(0.1)
    raise AssertionError(f'no {what} after {PATIENCE} s')


@pytest.fixture(scope='module')
def address(work_dirs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp('server')
    command = [sys.executable, TOOL, '--work-dirs', work_dirs, '--port', port]
    with open(folder / 'log.txt', 'w') as log:
        process = subprocess.Popen(
            [str(part) for part in command],
            stdout=log,
            stderr=log,
            env={**os.environ, 'GRADIO_TEMP_DIR': str(folder)},
            # a shell's background jobs are deaf to Ctrl-C, and so is what they start
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
    url = f'http://127.0.0.1:{port}/'

    def up() -> bool:
        assert process.poll() is None, (folder / 'log.txt').read_text()
        with urllib.request.urlopen(url) as answer:
            return answer.status == 200

    try:
        wait_for(up, 'page')
        yield url
        assert f'the page is at {url}' in (folder / 'log.txt').read_text()
        process.send_signal(signal.SIGINT)
        wait_for(lambda: process.poll() is not None, 'end')
        said = (folder / 'log.txt').read_text()
        assert 'Traceback' not in said or 'Too little data for declared Content-Length' in said  # see wait_for
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope='module')
def browser() -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ('--headless=new', '--no-sandbox', '--disable-dev-shm-usage', '--disable-gpu'):
        options.add_argument(argument)
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


class Page:
    """What a person sees and does."""

    def __init__(self, driver: Any, address: str, *, width: int = 1400) -> None:
        self.driver = driver
        size = {'width': width, 'height': 1000, 'deviceScaleFactor': 1, 'mobile': False}
        driver.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', size)
        driver.get(address)

    def find(self, css: str) -> Any:
        return self.driver.find_element('css selector', css)

    def count(self, css: str) -> int:
        return len(self.driver.find_elements('css selector', css))

    def wait_for_status(self, text: str) -> None:
        wait_for(lambda: text in ' '.join(self.find('#status').text.split()), f'status "{text}"')

    def wait_for_checkpoint(self, name: str) -> None:
        wait_for(lambda: self.find('#checkpoint input').get_attribute('value') == name, f'checkpoint {name}')

    def upload(self, path: Path) -> None:
        self.wait_for_checkpoint('quickstart/iter_4.pth')
        wait_for(lambda: self.find('#image input[type=file]'), 'place for an image').send_keys(str(path))

    def set_threshold(self, value: float) -> None:
        box = self.find('#threshold input[type=number]')
        box.send_keys(Keys.CONTROL, 'a')
        box.send_keys(f'{value:.2f}', Keys.TAB)

    def choose_stage(self, name: str) -> None:
        wait_for(lambda: self.find(f'#stage input[value="{name}"]'), name).click()

    def picture(self) -> bytes:
        """The file of the image that is shown."""

        def read() -> bytes:
            with urllib.request.urlopen(self.find('#result img').get_attribute('src')) as file:
                return file.read()

        return wait_for(read, 'result')

    def rows(self) -> int:
        return self.count('#detections tr:has(td)')


@pytest.fixture(scope='module')
def traced(work_dirs: Path, picture: Path) -> QueryTrace:
    found, _ = found_checkpoints(work_dirs)
    return DemoModel(found.config, found.checkpoint).look(picture).trace


def reached_by(trace: QueryTrace, stage: str, count: int) -> float:
    """The highest threshold in hundredths that at least ``count`` queries reach, and that none is just at."""
    scores = stages(trace)[stage].scores
    clear = [t / 100 for t in range(1, 100) if np.abs(scores - t / 100).min() > 1e-3]
    return max(t for t in clear if (scores >= t).sum() >= count)


def number(trace: QueryTrace, stage: str, threshold: float) -> int:
    return len(detections(stages(trace)[stage], trace.size_px, threshold))


def test_a_picture_goes_in_and_the_threshold_moves(
    browser: Any, address: str, picture: Path, traced: QueryTrace
) -> None:
    page = Page(browser, address)
    page.upload(picture)
    page.wait_for_status(f'{number(traced, RESULT, 0.5)} of 20 queries score at least 0.50.')
    low, high = reached_by(traced, RESULT, 12), reached_by(traced, RESULT, 3)
    shown = []
    for threshold in (low, high):
        page.set_threshold(threshold)
        count = number(traced, RESULT, threshold)
        page.wait_for_status(f'{count} of 20 queries score at least {threshold:.2f}.')
        wait_for(lambda count=count: page.rows() == count, f'table of {count}')
        shown.append((count, page.picture()))
    assert shown[0][0] > shown[1][0] > 0 and shown[0][1] != shown[1][1]
    page.set_threshold(1.0)
    page.wait_for_status('0 of 20 queries score at least 1.00. The best has')
    wait_for(lambda: page.rows() == 0, 'empty table')


def test_layers_and_tokens_are_shown(browser: Any, address: str, picture: Path, traced: QueryTrace) -> None:
    page = Page(browser, address)
    page.upload(picture)
    page.wait_for_status('of 20 queries')
    without = page.picture()
    page.find('#tokens input').click()
    page.wait_for_status('Dots: the encoder tokens that became queries')
    assert page.picture() != without
    wait_for(lambda: page.count('#stage input') == len(stages(traced)), 'choice of all stages')
    page.set_threshold(threshold := reached_by(traced, 'layer 1', 8))
    page.wait_for_status(f'at least {threshold:.2f}')
    pictures = set()
    for stage in ('encoder', 'layer 1', RESULT):
        page.choose_stage(stage)
        count = number(traced, stage, threshold)
        page.wait_for_status(f'{count} of 20 queries')
        wait_for(lambda count=count: page.rows() == count, f'table of {count}')
        pictures.add(page.picture())
    assert len(pictures) > 1


def test_a_file_that_is_no_picture_gets_a_sentence(browser: Any, address: str, picture: Path, tmp_path: Path) -> None:
    notes = tmp_path / 'notes.txt'
    notes.write_text('Nothing to see.')
    page = Page(browser, address)
    page.upload(notes)
    page.wait_for_status('notes.txt is no image that can be read; take a JPEG or PNG file')
    assert page.count('#result img') == page.rows() == 0
    page.find('#image button[aria-label="Clear"]').click()
    page.wait_for_status('Drop an image')
    page.upload(picture)
    page.wait_for_status('of 20 queries')


def test_a_checkpoint_that_does_not_fit_gets_a_sentence(
    browser: Any, address: str, picture: Path, work_dirs: Path
) -> None:
    page = Page(browser, address)
    page.upload(picture)
    page.wait_for_status('of 20 queries')
    page.find('#checkpoint input').click()
    options = wait_for(lambda: browser.find_elements('css selector', '[role=option]'), 'list of checkpoints')
    assert [one.text.split()[-1] for one in options] == [found.name for found in found_checkpoints(work_dirs)]
    options[1].click()
    page.wait_for_status('does not fit the model')
    assert page.count('#result img') == page.rows() == 0


def test_without_a_checkpoint_it_says_what_to_run(browser: Any, address: str, work_dirs: Path) -> None:
    away = work_dirs.rename(work_dirs.with_name('away'))
    try:
        page = Page(browser, address)
        page.wait_for_status('There is no checkpoint yet. Run make quickstart')
    finally:
        away.rename(work_dirs)
    Page(browser, address).wait_for_checkpoint('quickstart/iter_4.pth')


@pytest.mark.parametrize('width', [1400, 420])
def test_it_fits_the_screen_and_loads_nothing_from_elsewhere(
    browser: Any, address: str, picture: Path, width: int
) -> None:
    page = Page(browser, address, width=width)
    page.upload(picture)
    page.wait_for_status('of 20 queries')
    page.picture()
    assert browser.execute_script('return document.documentElement.scrollWidth') <= width
    slider, result = (page.find(css).rect for css in ('#threshold', '#result'))
    if width > 1000:
        assert slider['x'] + slider['width'] <= result['x']
    else:
        assert result['y'] + result['height'] <= slider['y']
    script = "return performance.getEntriesByType('resource').map(entry => entry.name)"
    loaded = [name for name in browser.execute_script(script) if not name.startswith(('data:', 'blob:'))]
    assert loaded and all(name.startswith(address) for name in loaded)


def test_a_port_that_is_taken_gets_a_sentence(address: str, work_dirs: Path) -> None:
    port = address.rsplit(':', 1)[1].strip('/')
    command = [sys.executable, str(TOOL), '--work-dirs', str(work_dirs), '--port', port]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert done.returncode == 2 and 'Traceback' not in done.stderr
    assert f"error: port {port} of 127.0.0.1 can't be served" in done.stderr
