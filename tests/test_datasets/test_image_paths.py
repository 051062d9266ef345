"""File names that lead nowhere: what is on the disk instead is said, where there is something like it."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest

from mmdet_iouquery.datasets.coco.image_paths import check_files_exist
from mmdet_iouquery.errors import InputError

COMPOSED, DECOMPOSED = (unicodedata.normalize(form, 'Jäger.jpg') for form in ('NFC', 'NFD'))
CASES = {
    'case': ('A.jpg', 'a.JPG', "on the disk it is 'a.JPG' (other upper and lower case)"),
    'case of a folder': ('Cam/1.jpg', 'cam/1.jpg', "on the disk it is 'cam/1.jpg' (other upper and lower case)"),
    'backslash': ('cam\\1.jpg', 'cam/1.jpg', "on the disk it is 'cam/1.jpg' (a slash instead of a backslash)"),
    'decomposed on the disk': (COMPOSED, DECOMPOSED, 'in another Unicode form: decomposed, NFD'),
    'composed on the disk': (DECOMPOSED, COMPOSED, 'in another Unicode form: composed, NFC'),
    'a folder too many': ('images/1.jpg', '1.jpg', "'1.jpg' is there: write the names without the folder"),
    'another machine': ('C:\\data\\images\\1.jpg', '1.jpg', "'1.jpg' is there: write the names without the folder"),
    'an absolute path': ('/nowhere/else/1.jpg', '1.jpg', "'1.jpg' is there: write the names without the folder"),
    'nothing like it': ('1.jpg', '2.jpg', 'correct the image folder or the file names'),
    'a lone surrogate': ('\ud800.jpg', '2.jpg', 'correct the image folder or the file names'),
    'a folder of that name': ('cam', 'cam/1.jpg', 'correct the image folder or the file names'),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / 'probe').touch()
    if (tmp_path / 'PROBE').exists():
        pytest.skip('this file system does not tell upper from lower case')
    (tmp_path / 'images').mkdir()
    return tmp_path / 'images'


@pytest.mark.parametrize('kind', CASES)
def test_a_name_that_leads_nowhere(folder: Path, kind: str) -> None:
    wanted, there, advice = CASES[kind]
    (folder / there).parent.mkdir(exist_ok=True)
    (folder / there).touch()
    with pytest.raises(InputError, match='1 of 1 image files are not in') as error:
        check_files_exist(Path('ann.json'), [wanted], folder)
    assert advice in str(error.value) and repr(wanted) in str(error.value)


def test_names_that_lead_to_files(folder: Path) -> None:
    (folder / 'deep').mkdir()
    for path in (folder / 'a.jpg', folder / 'deep/b.jpg', folder.parent / 'c.jpg'):
        path.touch()
    os.symlink(folder / 'a.jpg', folder / 'linked.jpg')
    os.symlink(folder / 'gone.jpg', folder / 'dangling.jpg')
    names = ['a.jpg', 'deep/b.jpg', 'deep/../a.jpg', '../c.jpg', str(folder / 'a.jpg'), 'linked.jpg']
    check_files_exist(Path('ann.json'), names, folder)
    with pytest.raises(InputError, match=r"1 of 7 image files are not in .*: 'dangling.jpg'"):
        check_files_exist(Path('ann.json'), [*names, 'dangling.jpg'], folder)
