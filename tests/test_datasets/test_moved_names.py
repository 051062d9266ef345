"""Names of release 0.2.0 that stand in the package itself now: the old import works, and names the new one."""

from __future__ import annotations

import pytest

import mmdet_iouquery
from mmdet_iouquery import datasets


@pytest.mark.parametrize('name', ['CocoSet', 'find_coco_set', 'read_data'])
def test_the_old_import_warns_and_is_the_same(name: str) -> None:
    code = compile(f'from mmdet_iouquery.datasets import {name}', __file__, 'exec')
    scope: dict[str, object] = {}
    message = rf'ends with 0\.4\.0; write: from mmdet_iouquery import {name}$'
    with pytest.warns(DeprecationWarning, match=message) as seen:
        exec(code, scope)
    assert {warning.filename for warning in seen} == {__file__}, 'it is told where the import stands'
    assert scope[name] is getattr(mmdet_iouquery, name) and name in mmdet_iouquery.__all__


def test_other_names_are_none() -> None:
    with pytest.raises(AttributeError, match=r"module 'mmdet_iouquery\.datasets' has no attribute 'read_dota'"):
        _ = datasets.read_dota
