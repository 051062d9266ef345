"""The page in a browser, as a person uses it: an image goes in, boxes come out, and bad input gets a sentence."""

from __future__ import annotations

import io
import json
import shutil
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from demo_server import wait_for
from PIL import Image

from mmdet_iouquery.apps.analyze.trace import QueryTrace
from mmdet_iouquery.apps.demo.animation import HOLD_S, animation_stages, followed, stage_times
from mmdet_iouquery.apps.demo.catalogue import found_models
from mmdet_iouquery.apps.demo.examples import validation_examples
from mmdet_iouquery.apps.demo.image_results import as_json, show
from mmdet_iouquery.apps.demo.model import DemoModel, Shelf
from mmdet_iouquery.apps.demo.overlay import RESULT, detections, stages
from mmdet_iouquery.apps.demo.video import video_writer

pytest.importorskip('gradio', reason="the page needs gradio: pip install 'gradio>=6'")
webdriver = pytest.importorskip('selenium.webdriver', reason='driving a browser needs selenium: pip install selenium')
from selenium.common.exceptions import WebDriverException  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

from mmdet_iouquery.apps.demo.handlers import ALL  # noqa: E402

CHROMIUM = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
DRIVER = shutil.which('chromedriver')
pytestmark = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None, reason='no Chromium with its driver; on Debian: apt install chromium-driver'
)
DEFAULT = 'quickstart/iter_4.pth'
EXPORTED = 'exported/model.onnx'


@pytest.fixture(scope='module')
def browser() -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (
        '--headless=new',
        '--no-sandbox',
        '--disable-dev-shm-usage',
        '--disable-gpu',
        '--use-fake-device-for-media-stream',  # a webcam that shows a moving pattern,
        '--use-fake-ui-for-media-stream',  # and whose use is allowed
    ):
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

    def wait_for(self, condition: Any, what: str) -> Any:
        """An element may not be there yet, or no more."""
        return wait_for(condition, what, (WebDriverException,))

    def wait_for_status(self, text: str, where: str = '#status') -> None:
        self.wait_for(lambda: text in ' '.join(self.find(where).text.split()), f'status "{text}"')

    def wait_for_checkpoint(self, name: str = DEFAULT) -> None:
        self.wait_for(lambda: self.find('#checkpoint input').get_attribute('value') == name, f'checkpoint {name}')

    def upload(self, path: Path, where: str = '#image') -> None:
        self.wait_for_checkpoint()
        self.wait_for(lambda: self.find(f'{where} input[type=file]'), 'place for a file').send_keys(str(path))

    def open_tab(self, name: str) -> None:
        self.wait_for_checkpoint()
        tabs = self.driver.find_elements('css selector', '#sources [role=tab]')
        next(tab for tab in tabs if tab.text == name).click()

    def choose(self, dropdown: str, name: str) -> list[str]:
        """Gives all that could be chosen."""
        self.find(f'{dropdown} input').click()

        def offered() -> dict[str, Any]:
            options = self.driver.find_elements('css selector', '[role=option]')
            actual = {option.get_attribute('aria-label'): option for option in options}
            return actual if name in actual else {}

        options = self.wait_for(offered, f'choice of {name}')
        options[name].click()
        return [*options]

    def set_threshold(self, value: float) -> None:
        box = self.find('#threshold input[type=number]')
        box.send_keys(Keys.CONTROL, 'a')
        box.send_keys(f'{value:.2f}', Keys.TAB)

    def choose_stage(self, name: str) -> None:
        self.wait_for(lambda: self.find(f'#stage input[value="{name}"]'), name).click()

    def image(self, where: str = '#result') -> bytes:
        """The file of the image that is shown."""
        return self.wait_for(lambda: read(self.find(f'{where} img').get_attribute('src')), 'result')

    def download(self, button: str) -> bytes:
        """The file that the browser writes when a button is pressed."""
        with TemporaryDirectory() as folder:
            behaviour = {'behavior': 'allow', 'downloadPath': folder}
            self.driver.execute_cdp_cmd('Browser.setDownloadBehavior', behaviour)
            self.wait_for(lambda: self.find(button).is_displayed(), f'{button} to press')
            self.find(button).click()

            def whole() -> Path | None:
                return next((file for file in Path(folder).iterdir() if file.suffix != '.crdownload'), None)

            return self.wait_for(whole, f'file of {button}').read_bytes()

    def rows(self) -> int:
        return self.count('#detections tr:has(td)')


def read(address: str) -> bytes:
    with urllib.request.urlopen(address) as file:
        return file.read()


@pytest.fixture(scope='module')
def traced(work_dirs: Path, image_path: Path) -> QueryTrace:
    listed = found_models(work_dirs)[0]
    assert listed.config is not None
    traced = DemoModel(listed.config, listed.checkpoint).look(image_path).trace
    assert traced is not None
    return traced


def reached_by(trace: QueryTrace, stage: str, count: int) -> float:
    """The highest threshold in hundredths that at least ``count`` queries reach, and that none is just at."""
    scores = stages(trace)[stage].scores
    clear = [t / 100 for t in range(1, 100) if np.abs(scores - t / 100).min() > 1e-3]
    return max(t for t in clear if (scores >= t).sum() >= count)


def number(trace: QueryTrace, stage: str, threshold: float) -> int:
    return len(detections(stages(trace)[stage], trace.size_px, threshold))


def test_an_image_goes_in_and_the_threshold_moves(
    browser: Any, address: str, image_path: Path, traced: QueryTrace
) -> None:
    page = Page(browser, address)
    page.upload(image_path)
    page.wait_for_status(f'{number(traced, RESULT, 0.5)} of 20 queries score at least 0.50.')
    low, high = reached_by(traced, RESULT, 12), reached_by(traced, RESULT, 3)
    shown = []
    for threshold in (low, high):
        page.set_threshold(threshold)
        count = number(traced, RESULT, threshold)
        page.wait_for_status(f'{count} of 20 queries score at least {threshold:.2f}.')
        page.wait_for(lambda count=count: page.rows() == count, f'table of {count}')
        shown.append((count, page.image()))
    assert shown[0][0] > shown[1][0] > 0 and shown[0][1] != shown[1][1]
    page.set_threshold(1.0)
    page.wait_for_status('0 of 20 queries score at least 1.00. The best has')
    page.wait_for(lambda: page.rows() == 0, 'empty table')


def test_layers_and_tokens_are_shown(browser: Any, address: str, image_path: Path, traced: QueryTrace) -> None:
    page = Page(browser, address)
    page.upload(image_path)
    page.wait_for_status('of 20 queries')
    without = page.image()
    page.find('#tokens input').click()
    page.wait_for_status('Dots: the encoder tokens that became queries')
    assert page.image() != without
    page.wait_for(lambda: page.count('#stage input') == len(stages(traced)) + 1, 'choice of all stages')
    page.set_threshold(threshold := reached_by(traced, 'layer 1', 8))
    page.wait_for_status(f'at least {threshold:.2f}')
    images = set()
    for stage in ('encoder', 'layer 1', RESULT):
        page.choose_stage(stage)
        count = number(traced, stage, threshold)
        page.wait_for_status(f'{count} of 20 queries')
        page.wait_for(lambda count=count: page.rows() == count, f'table of {count}')
        images.add(page.image())
    assert len(images) > 1


BOX = """
const [svg, row, time] = [document.querySelector('#layers svg'), arguments[0], arguments[1]];
svg.pauseAnimations();
svg.setCurrentTime(time);
const groups = [...svg.querySelectorAll('g[fill=none]')];
const rect = groups[groups.length - 1 - row].querySelector('rect');
return ['x', 'y', 'width', 'height'].map(side => rect[side].animVal.value);
"""


def test_the_animation_moves_the_boxes_from_stage_to_stage(
    browser: Any, address: str, image_path: Path, traced: QueryTrace
) -> None:
    page = Page(browser, address)
    page.upload(image_path)
    page.wait_for_status('of 20 queries')
    page.set_threshold(threshold := reached_by(traced, RESULT, 4))
    page.wait_for_status(f'at least {threshold:.2f}')
    page.choose_stage(ALL)
    page.wait_for(lambda: page.count('#layers svg'), 'animation')
    assert page.count('#result img') == 0
    queries = followed(traced, threshold)
    shown = animation_stages(traced, queries, ())
    assert page.count('#layers svg g[fill=none]') == len(queries) >= 4
    for start, stage in zip(stage_times(len(shown)), shown):
        for row in range(len(queries)):
            x1, y1, x2, y2 = stage.boxes_px[row]
            seen = browser.execute_script(BOX, row, start + HOLD_S / 2)
            # px: two decimals are written, and the browser rounds
            assert np.allclose(seen, [x1, y1, x2 - x1, y2 - y1], atol=0.02)
    paused = 'return document.querySelector("#layers svg").animationsPaused()'
    assert browser.execute_script(paused)
    buttons = browser.find_elements('css selector', '#layers button')
    assert [button.text for button in buttons] == ['Pause', *(stage.name for stage in shown)]
    buttons[2].click()  # the encoder
    now = browser.execute_script('return document.querySelector("#layers svg").getCurrentTime()')
    assert stage_times(2)[1] < now < stage_times(2)[1] + HOLD_S and buttons[0].text == 'Play'
    buttons[0].click()
    assert not browser.execute_script(paused) and buttons[0].text == 'Pause'
    assert page.download('#layers-file').startswith(b'<svg ')
    page.choose_stage(RESULT)
    page.image()
    page.wait_for(lambda: page.count('#layers svg') == 0, 'end of the animation')


def test_an_example_is_shown_beside_its_ground_truth(browser: Any, address: str, work_dirs: Path) -> None:
    listed = found_models(work_dirs)[0]
    assert listed.config is not None
    examples = validation_examples(listed.config)
    page = Page(browser, address)
    page.wait_for(lambda: page.count('#examples button img') == len(examples), 'examples')
    browser.find_elements('css selector', '#examples button')[1].click()
    page.wait_for_status('of 20 queries')
    other = page.image()
    browser.find_elements('css selector', '#examples button')[0].click()
    page.wait_for(lambda: page.image() != other, 'first example')
    assert page.count('#truth img') == 0
    page.wait_for(lambda: page.find('#with-truth input').is_enabled(), 'choice of the ground truth')
    page.find('#with-truth input').click()
    page.wait_for(lambda: page.count('#truth img') == 1, 'ground truth')
    assert page.image('#truth') != page.image()
    content = json.loads(page.download('#json-file'))
    expected = show(listed.name, Shelf(lambda: [listed]).model(listed.name), examples[0], 0.5)
    assert content == json.loads(json.dumps(as_json([expected], 0.5, examples[0])))
    assert len(content['ground_truth']) == len(examples[0].objects.labels) > 0  # type: ignore[union-attr]


@pytest.mark.parametrize('width', [1400, 420])
def test_two_models_are_shown_side_by_side(browser: Any, address: str, image_path: Path, width: int) -> None:
    page = Page(browser, address, width=width)
    page.upload(image_path)
    page.wait_for_status('of 20 queries')
    assert page.choose('#other', EXPORTED) == ['no other', DEFAULT, 'other/iter_1.pth', EXPORTED]
    page.wait_for_status(f'{DEFAULT}:')
    page.wait_for_status(f'{EXPORTED}:')
    assert page.image() != page.image('#other-result')
    first, second = (page.find(css).rect for css in ('#result', '#other-result'))
    if width > 1000:
        assert first['x'] + first['width'] <= second['x'] and abs(first['y'] - second['y']) < 2
    else:
        assert first['y'] + first['height'] <= second['y']
    content = json.loads(page.download('#json-file'))
    assert [model['model'] for model in content['models']] == [DEFAULT, EXPORTED]
    with Image.open(io.BytesIO(page.download('#image-file'))) as both, Image.open(image_path) as alone:
        assert both.width / both.height > 1.5 * alone.width / alone.height


def test_an_exported_file_is_a_model_by_itself(browser: Any, address: str, image_path: Path) -> None:
    page = Page(browser, address)
    page.upload(image_path)
    page.wait_for_status('of 20 queries')
    page.choose('#checkpoint', EXPORTED)
    page.wait_for_status('detections score at least 0.50. An exported file gives its result alone')
    page.wait_for(lambda: page.count('#stage input') == 1, 'one stage')
    assert page.image()
    page.wait_for(lambda: page.count('#examples button img') == 0, 'end of the examples')


@pytest.fixture(scope='module')
def film(tmp_path_factory: pytest.TempPathFactory, image_path: Path) -> Path:
    path = tmp_path_factory.mktemp('film') / 'film.webm'
    with video_writer(path, 5) as add, Image.open(image_path) as image:
        for angle in range(0, 50, 5):
            add(image.rotate(angle))
    return path


def test_a_video_is_annotated_and_plays(browser: Any, address: str, film: Path, tmp_path: Path) -> None:
    page = Page(browser, address)
    page.open_tab('Video')
    (tmp_path / 'notes.mp4').write_text('Nothing to see.')
    page.upload(tmp_path / 'notes.mp4', '#video')
    page.wait_for(lambda: 'notes' in page.find('#video').text, 'uploaded file')
    page.find('#detect').click()
    page.wait_for_status('notes.mp4 is no video that can be read', '#video-status')
    page.find('#video button[aria-label="Clear"]').click()
    page.upload(film, '#video')
    page.wait_for(lambda: 'film' in page.find('#video').text, 'uploaded film')
    page.set_threshold(0.2)
    page.find('#detect').click()
    page.wait_for_status('detections in 10 frames', '#video-status')
    content = json.loads(page.download('#video-json'))
    assert [frame['time'] for frame in content['frames']] == pytest.approx([0.2 * number for number in range(10)])
    assert content['model'] == DEFAULT and sum(len(frame['detections']) for frame in content['frames']) > 0
    ready = 'const it = document.querySelector("#annotated video"); return it && it.readyState >= 2 && it.videoWidth'
    assert page.wait_for(lambda: browser.execute_script(ready), 'playing video') >= 100


def test_a_webcam_is_watched(browser: Any, address: str, image_path: Path) -> None:
    page = Page(browser, address)
    page.open_tab('Webcam')
    seen = 'return [...document.querySelectorAll("#webcam button")].find(button => button.offsetParent)'
    page.wait_for(lambda: browser.execute_script(seen), 'way to the webcam').click()
    page.wait_for(lambda: browser.execute_script(seen).text == 'Record', 'image of the webcam')
    browser.execute_script(seen).click()
    page.wait_for_status('of 20 queries score at least 0.50', '#webcam-status')
    frames = {page.wait_for(lambda: page.find('#live img').get_attribute('src'), 'frame')}
    page.wait_for(lambda: frames.add(page.find('#live img').get_attribute('src')) or len(frames) > 1, 'next frame')
    assert all(frame.startswith('data:image/jpeg') for frame in frames)
    page.open_tab('Image')  # others are served meanwhile
    page.upload(image_path)
    page.wait_for_status('of 20 queries')


def test_a_file_that_is_no_image_gets_a_sentence(browser: Any, address: str, image_path: Path, tmp_path: Path) -> None:
    notes = tmp_path / 'notes.txt'
    notes.write_text('Nothing to see.')
    page = Page(browser, address)
    page.upload(notes)
    page.wait_for_status('notes.txt is no image that can be read')
    assert page.count('#result img') == page.rows() == 0
    page.find('#image button[aria-label="Clear"]').click()
    page.wait_for_status('Drop an image')
    page.upload(image_path)
    page.wait_for_status('of 20 queries')


def test_a_checkpoint_that_does_not_fit_gets_a_sentence(
    browser: Any, address: str, image_path: Path, work_dirs: Path
) -> None:
    page = Page(browser, address)
    page.upload(image_path)
    page.wait_for_status('of 20 queries')
    assert page.choose('#checkpoint', 'other/iter_1.pth') == [listed.name for listed in found_models(work_dirs)]
    page.wait_for_status('does not fit the model')
    assert page.count('#result img') == page.rows() == 0


def test_without_a_checkpoint_it_says_what_to_run(browser: Any, address: str, work_dirs: Path) -> None:
    away = work_dirs.rename(work_dirs.with_name('away'))
    try:
        page = Page(browser, address)
        page.wait_for_status('There is no checkpoint yet. Run make quickstart')
    finally:
        away.rename(work_dirs)
    Page(browser, address).wait_for_checkpoint()


@pytest.mark.parametrize('width', [1400, 420])
def test_it_fits_the_screen_and_loads_nothing_from_elsewhere(
    browser: Any, address: str, image_path: Path, width: int
) -> None:
    page = Page(browser, address, width=width)
    page.upload(image_path)
    page.wait_for_status('of 20 queries')
    page.image()
    assert browser.execute_script('return document.documentElement.scrollWidth') <= width
    slider, result = (page.find(css).rect for css in ('#threshold', '#result'))
    if width > 1000:
        assert slider['x'] + slider['width'] <= result['x']
    else:
        assert result['y'] + result['height'] <= slider['y']
    page.choose_stage(ALL)
    page.wait_for(lambda: page.count('#layers svg'), 'animation')
    assert browser.execute_script('return document.documentElement.scrollWidth') <= width
    for tab in ('Webcam', 'Video'):
        page.open_tab(tab)
        page.wait_for(lambda: page.count('#layers svg') == 0, tab)
        assert browser.execute_script('return document.documentElement.scrollWidth') <= width
    script = "return performance.getEntriesByType('resource').map(entry => entry.name)"
    loaded = [name for name in browser.execute_script(script) if not name.startswith(('data:', 'blob:'))]
    assert loaded and all(name.startswith(address) for name in loaded)
