"""What is said while a run is made ready: at once, but for its config and log, which a refusal drops."""

from __future__ import annotations

import logging
import shutil
from contextlib import redirect_stdout
from pathlib import Path

import pytest
from runs import SMALL_MODEL

from mmdet_iouquery import find_coco_set
from mmdet_iouquery.apps.quickstart.command import config_text
from mmdet_iouquery.apps.quickstart.digits import build_digits
from mmdet_iouquery.datasets.coco import json_file
from mmdet_iouquery.engine import launch
from mmdet_iouquery.engine.held_output import held_back
from mmdet_iouquery.errors import InputError


@pytest.mark.parametrize(
    ('error', 'shown'), [(None, 'a\nb\n'), (KeyboardInterrupt, 'a\n'), (ValueError, 'a\n'), (InputError, '')]
)
def test_all_is_shown_but_with_a_refusal(
    error: type[BaseException] | None, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def write() -> None:
        with held_back() as held, redirect_stdout(held):
            print('a')
            if error is not None:
                raise error('stop')
            print('b')
            assert capsys.readouterr().out == ''

    if error is None:
        write()
    else:
        with pytest.raises(error):
            write()
    assert capsys.readouterr().out == shown


def test_a_log_that_began_within_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    for refused in (False, True):
        try:
            with held_back() as held:
                logger = logging.Logger('own')
                logger.addHandler(logging.StreamHandler(held))
                logger.warning('within')
                print('at once')
                assert capsys.readouterr().out == 'at once\n'
                if refused:
                    raise InputError('no')
        except InputError:
            pass
        logger.warning('after')
        assert capsys.readouterr().out == ('after\n' if refused else 'within\nafter\n')


@pytest.fixture(scope='module')
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a small model on four images."""
    root = tmp_path_factory.mktemp('data')
    build_digits(root / 'digits', num_train=4, num_val=2, image_size=96, progress=False)
    path = root / 'given.py'
    path.write_text(config_text(find_coco_set(root / 'digits'), iters=1, image_size=64) + SMALL_MODEL)
    return path


@pytest.mark.parametrize('error', [KeyboardInterrupt, MemoryError, InputError])
def test_a_stop_while_a_run_is_made_ready(
    error: type[BaseException],
    config: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Notes come at once, on either stream; the config comes with all that is no refusal."""

    def stopped(*_: object) -> None:
        print('note: tried')
        out, err = capsys.readouterr()
        assert out.endswith('note: tried\n') and all(line.startswith('note: ') for line in out.splitlines())
        assert err.startswith(f'reading {config.parent}/digits/')
        raise error('here')

    monkeypatch.setattr(json_file, '_LARGE', 100)
    monkeypatch.setattr(launch, 'try_out', stopped)
    own = shutil.copy(config, tmp_path / f'{error.__name__}.py')  # mmengine names a log by the config and the second
    with pytest.raises(error):
        launch.train([str(own), '--work-dir', str(tmp_path / 'run')], summary='summary\n')
    out = capsys.readouterr().out
    expected = ['summary\n', 'INFO - Config:\n'] if error is not InputError else []
    assert [text for text in ('summary\n', 'INFO - Config:\n') if text in out] == expected
    assert (tmp_path / 'run').exists() == (error is not InputError)


def test_a_dry_run_leaves_the_work_folder_as_it_is(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = shutil.copy(config, tmp_path / 'dry_run.py')
    launch.train([str(own), '--work-dir', str(tmp_path / 'run'), '--dry-run'], summary='summary\n')
    out = capsys.readouterr().out
    assert 'summary\n' in out and out.splitlines()[-1].startswith('dry run: a step with')
    assert not (tmp_path / 'run').exists()
