from __future__ import annotations

import pytest

from mmdet_iouquery.checkpoints import dfine, rtdetr, transformers
from mmdet_iouquery.checkpoints.prefix_map import PrefixMap
from mmdet_iouquery.errors import InputError

TABLES = [rtdetr.DETECTOR, rtdetr.BACKBONE, transformers.DETECTOR, transformers.DETECTOR_DFINE, dfine.DETECTOR]
WHOLE_KEYS = {f'{start}decoder.{constant}' for start in ('', 'model.', 'bbox_head.') for constant in dfine.CONSTANTS}


@pytest.mark.parametrize('table', TABLES, ids=lambda table: table.project)
def test_every_pair_is_read_in_both_directions(table: PrefixMap) -> None:
    assert len({theirs for theirs, _ in table.pairs}) == len({ours for _, ours in table.pairs}) == len(table.pairs)
    for theirs, ours in table.pairs:
        if ours in WHOLE_KEYS:
            assert theirs in WHOLE_KEYS and table.to_ours(theirs) == ours and table.to_theirs(ours) == theirs
            continue
        assert theirs.endswith('.') and ours.endswith('.')
        assert table.to_ours(f'{theirs}weight') == f'{ours}weight'
        assert table.to_theirs(f'{ours}weight') == f'{theirs}weight'


def test_the_longest_prefix_wins() -> None:
    names = PrefixMap([('a.', 'x.'), ('a.b.', 'y.')], 'a test')
    assert [names.to_ours(key) for key in ('a.weight', 'a.b.weight', 'a.c.b.weight')] == [
        'x.weight',
        'y.weight',
        'x.c.b.weight',
    ]


@pytest.mark.parametrize('pairs', [[('a.', 'x.'), ('b.', 'x.')], [('a.', 'x.'), ('a.', 'y.')]])
def test_a_table_that_is_not_one_to_one_is_refused(pairs: list[tuple[str, str]]) -> None:
    with pytest.raises(ValueError, match='a test is not one-to-one'):
        PrefixMap(pairs, 'a test')


def test_an_unknown_key_is_named() -> None:
    names = PrefixMap([('a.', 'x.')], "somebody's RT-DETR")
    with pytest.raises(InputError, match=r"'c.weight'.*somebody's RT-DETR"):
        names.to_ours('c.weight')
    with pytest.raises(InputError, match=r"'a.weight'"):
        names.to_theirs('a.weight')


def test_both_projects_lead_to_the_same_names() -> None:
    """Apart from the prefixes of whole modules, which are cut at other places."""
    for first, second in ((rtdetr.DETECTOR, transformers.DETECTOR), (dfine.DETECTOR, transformers.DETECTOR_DFINE)):
        backbone = {ours for _, ours in first.pairs if ours.startswith('backbone.')}
        assert backbone == {ours for _, ours in second.pairs if ours.startswith('backbone.')}
