"""The page as an API, and who is let in; without a browser."""

from __future__ import annotations

import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError

import pytest
from demo_server import PATIENCE, TOOL, served

from mmdet_iouquery.apps.demo.catalogue import found_models
from mmdet_iouquery.apps.demo.examples import Example
from mmdet_iouquery.apps.demo.image_results import as_json, show
from mmdet_iouquery.apps.demo.model import Shelf

gradio_client = pytest.importorskip('gradio_client', reason="the page needs gradio: pip install 'gradio>=6'")
pytest.importorskip('gradio', reason="the page needs gradio: pip install 'gradio>=6'")


@pytest.fixture(scope='module')
def client(address: str) -> gradio_client.Client:
    return gradio_client.Client(address, verbose=False)


def test_a_program_gets_what_the_page_shows(client: gradio_client.Client, work_dirs: Path, image_path: Path) -> None:
    names = [model.name for model in found_models(work_dirs)]
    assert client.predict(api_name='/models') == names
    shelf, example = Shelf(lambda: found_models(work_dirs)), Example(image_path)
    image = gradio_client.handle_file(image_path)
    default = client.predict(image=image, api_name='/detect')
    assert default == as_json([show(names[0], shelf.model(names[0]), example, 0.5)], 0.5, example)
    exported = client.predict(image=image, model='exported/model.onnx', threshold=0.05, api_name='/detect')
    expected = show('exported/model.onnx', shelf.model('exported/model.onnx'), example, 0.05)
    assert exported == as_json([expected], 0.05, example)
    assert exported['models'][0]['detections']


def test_a_programs_mistakes_get_a_sentence(client: gradio_client.Client, image_path: Path, tmp_path: Path) -> None:
    notes = tmp_path / 'notes.txt'
    notes.write_text('Nothing to see.')
    image = gradio_client.handle_file(image_path)
    for arguments, sentence in (
        (dict(image=gradio_client.handle_file(notes)), r'notes\.txt is no image that can be read'),
        (dict(image=image, model='none'), "there is no model 'none'; there are: quickstart/iter_4.pth"),
        (dict(image=image, model='other/iter_1.pth'), 'does not fit the model'),
        (dict(image=image, threshold=2.0), r'threshold must lie in \[0, 1\], got 2'),
    ):
        with pytest.raises(Exception, match=sentence):
            client.predict(**arguments, api_name='/detect')


def test_only_the_two_endpoints_can_be_called(client: gradio_client.Client) -> None:
    assert set(client.view_api(return_format='dict')['named_endpoints']) == {'/detect', '/models'}


def test_files_of_the_machine_are_not_served(address: str, work_dirs: Path) -> None:
    for path in (work_dirs / 'quickstart' / 'iter_4.pth', Path('/etc/hostname')):
        with pytest.raises(HTTPError) as refused:
            urllib.request.urlopen(f'{address}gradio_api/file={path}')
        assert refused.value.code in (403, 404)


@pytest.fixture(scope='module')
def guarded(work_dirs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The address, and the password that was made up."""
    folder = tmp_path_factory.mktemp('guarded')
    with served(folder, '--work-dirs', work_dirs, '--host', '0.0.0.0', '--password') as (address, output):
        lines = output().splitlines()
        (line,) = (line for line in lines if line.startswith('the password is '))
        assert any('whoever reaches this machine and knows the password' in line for line in lines)
        yield address, line.removeprefix('the password is ').removesuffix(', the name any')


def test_a_password_is_asked_for(guarded: tuple[str, str], image_path: Path) -> None:
    address, password = guarded
    with pytest.raises(HTTPError) as refused:
        urllib.request.urlopen(f'{address}gradio_api/info')
    assert refused.value.code == 401
    with pytest.raises(Exception, match=r'(?i)auth|credentials|login'):
        gradio_client.Client(address, auth=('me', f'{password}x'), verbose=False)
    client = gradio_client.Client(address, auth=('me', password), verbose=False)
    assert client.predict(image=gradio_client.handle_file(image_path), api_name='/detect')['image'] == image_path.name


def test_a_port_that_is_taken_gets_a_sentence(address: str, work_dirs: Path) -> None:
    port = address.rsplit(':', 1)[1].strip('/')
    command = [sys.executable, str(TOOL), '--work-dirs', str(work_dirs), '--port', port]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert done.returncode == 2 and 'Traceback' not in done.stderr
    assert f'error: port {port} of 127.0.0.1 cannot be served' in done.stderr
