"""``make setup`` called again: nothing to do when done; after a stop, what is missing and what is half installed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mmdet_iouquery.version import FAMILIES

ROOT = Path(__file__).resolve().parents[1]
FAKE_PIP = '''
"""Notes what it is asked to install, and writes the metadata of it; killed with its parent where a file says so."""
import os, pathlib, re, signal, sys

prefix = pathlib.Path(sys.prefix)
if '--version' in sys.argv:
    raise SystemExit(0)
packages = [word for word in sys.argv[2:] if '==' in word]
with open(prefix / 'asked.txt', 'a') as file:
    file.write(' '.join(packages or sys.argv[-1:]) + '\\n')
for package in packages:
    name, version = package.split('==')
    folder = pathlib.Path(__file__).parents[1] / f'{name.replace("-", "_")}-{version}.dist-info'
    folder.mkdir(exist_ok=True)
    (folder / 'METADATA').write_text(f'Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n')
    stop = prefix / 'stop_in.txt'
    if stop.exists() and stop.read_text() == name:
        stop.unlink()
        os.kill(os.getppid(), signal.SIGKILL)
        raise SystemExit(1)
    (folder / 'RECORD').write_text('')
'''


class Environment:
    """A virtual environment whose pip installs nothing, and a folder like a checkout to set up."""

    def __init__(self, folder: Path) -> None:
        self.venv = folder / 'venv'
        self.checkout = folder / 'checkout'
        subprocess.run([sys.executable, '-m', 'venv', '--without-pip', str(self.venv)], check=True)
        (packages,) = self.venv.glob('lib/python*/site-packages')
        (packages / 'pip').mkdir()
        (packages / 'pip' / '__main__.py').write_text(FAKE_PIP)
        (packages / 'pip' / '__init__.py').touch()
        for name in ('setup.py', 'pyproject.toml', 'mmdet_iouquery/version.py', 'tools/setup_env.sh'):
            (self.checkout / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, self.checkout / name)

    def set_up(self, extras: str = 'test', stop_in: str = '') -> tuple[int, str, list[str]]:
        """Exit status, what it says, and what pip was asked for."""
        if stop_in:
            (self.venv / 'stop_in.txt').write_text(stop_in)
        asked = self.venv / 'asked.txt'
        asked.write_text('')
        settings = {'VENV': str(self.venv), 'EXTRAS': extras, 'FAMILY': 'onedl', 'TORCH': 'torch==2.13.0'}
        done = subprocess.run(
            ['bash', str(self.checkout / 'tools' / 'setup_env.sh')],
            env={**os.environ, 'USE_CURRENT': '', 'PYTHON': sys.executable, **settings},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr, asked.read_text().splitlines()


PINS = ' '.join(package.pin for package in FAMILIES['onedl'])

pytestmark = pytest.mark.skipif(os.name == 'nt', reason='a shell script')


def test_a_finished_set_up_asks_pip_for_nothing_and_another_extra_for_that_alone(tmp_path: Path) -> None:
    environment = Environment(tmp_path)
    assert environment.set_up()[::2] == (0, ['torch==2.13.0', PINS, '.[test]'])
    assert environment.set_up() == (0, '', [])
    assert environment.set_up('test,dev')[::2] == (0, ['.[dev]'])


@pytest.mark.parametrize(
    ('stop_in', 'asked_again'),
    [
        ('torch', ['torch==2.13.0', PINS, '.[test]']),
        ('onedl-mmcv', [' '.join(PINS.split()[1:]), '.[test]']),
    ],
)
def test_a_set_up_that_was_killed_installs_what_is_half_there(
    stop_in: str, asked_again: list[str], tmp_path: Path
) -> None:
    environment = Environment(tmp_path)
    assert environment.set_up(stop_in=stop_in)[0] == -9
    status, output, asked = environment.set_up()
    assert (status, asked) == (0, asked_again) and f'installing {stop_in.replace("-", "_")}-' in output
    assert environment.set_up() == (0, '', [])


def test_an_environment_of_another_checkout_is_left_alone(tmp_path: Path) -> None:
    environment = Environment(tmp_path)
    (packages,) = environment.venv.glob('lib/python*/site-packages')
    (installed := packages / 'mmdet_iouquery-0.2.0.dist-info').mkdir()
    (installed / 'METADATA').write_text('Metadata-Version: 2.1\nName: mmdet-iouquery\nVersion: 0.2.0\n')
    (installed / 'RECORD').touch()
    (other := tmp_path / 'another one').mkdir()

    def set_up_beside(checkout: Path) -> tuple[int, str, list[str]]:
        origin = {'url': checkout.as_uri(), 'dir_info': {'editable': True}}
        (installed / 'direct_url.json').write_text(json.dumps(origin))
        return environment.set_up()

    status, output, asked = set_up_beside(other)
    assert (status, asked) == (1, []) and f'from another checkout, {other}, which' in output
    other.rmdir()  # or moved to where it is set up from now
    assert set_up_beside(other)[::2] == (0, ['torch==2.13.0', PINS, '.[test]'])
    assert set_up_beside(environment.checkout) == (0, '', [])
