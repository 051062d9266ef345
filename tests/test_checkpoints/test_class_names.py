from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmdet_iouquery.checkpoints.class_names import class_notes, named_classes, parse_class_names
from mmdet_iouquery.errors import InputError

# fmt: off
COCO_IN_OBJECTS365 = [
    0, 46, 5, 58, 114, 55, 116, 65, 21, 40, 176, 127, 249, 24, 56, 139, 92, 78, 99, 96,
    144, 295, 178, 180, 38, 39, 13, 43, 120, 219, 148, 173, 165, 154, 137, 113, 145, 146, 204, 8,
    35, 10, 88, 84, 93, 26, 112, 82, 265, 104, 141, 152, 234, 143, 150, 97, 2, 50, 25, 75,
    98, 153, 37, 73, 115, 132, 106, 61, 163, 134, 277, 81, 133, 18, 94, 30, 169, 70, 328, 226,
]
# fmt: on
"""For each class of COCO where D-FINE's authors start it from: the id less 1 (``obj365_ids`` in their solver)."""


def test_class_names_from_text_and_files(tmp_path: Path) -> None:
    assert parse_class_names(' cat, dog ') == ['cat', 'dog']
    names = parse_class_names('coco')
    assert len(names) == 80 and names[0] == 'person' and names[-1] == 'toothbrush'
    listed, coco = tmp_path / 'list.json', tmp_path / 'coco.json'
    listed.write_text(json.dumps(['dog', 'cat']))
    coco.write_text(json.dumps({'categories': [{'id': 7, 'name': 'dog'}, {'id': 2, 'name': 'cat'}]}))
    assert parse_class_names(str(listed)) == ['dog', 'cat']
    assert parse_class_names(str(coco)) == ['cat', 'dog']


def test_objects365_has_all_classes_of_coco_where_the_authors_look_for_them() -> None:
    names = [name.lower() for name in parse_class_names('objects365')]
    assert len(set(names)) == len(names) == 365 and all(names)
    assert [names.index(name) for name in parse_class_names('coco')] == COCO_IN_OBJECTS365
    by_id = [name.lower() for name in parse_class_names(' Objects365-by-id')]
    assert by_id[1:] == names and by_id[0] not in names


@pytest.mark.parametrize('content', ['{"images": []}', '{"categories": [{"id": 1}]}', '[1, 2]', '"cat"', '{'])
def test_a_file_without_class_names_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / 'names.json'
    path.write_text(content)
    with pytest.raises(InputError, match=r'names\.json'):
        parse_class_names(str(path))
    with pytest.raises(InputError, match='cannot read class names'):
        parse_class_names(str(tmp_path / 'nowhere.json'))


def test_a_class_of_another_name_is_noted() -> None:
    """The first of them; not where case alone differs, nor where either names none or another number."""
    meta = {'dataset_meta': {'classes': ('Cat', 'dog', 'cow')}}

    def notes(*classes: str) -> list[str]:
        metainfo = {'classes': classes} if classes else {}
        return class_notes(
            {'val_dataloader': {'dataset': {'type': 'BaseDataset', 'metainfo': metainfo}}}, meta, 'a.pth'
        )

    assert notes('cat', 'dog', 'cow') == notes('cat', 'dog') == notes() == []
    (note,) = notes('cat', 'cow', 'dog')
    assert note.startswith("class 1 is 'dog' in a.pth and 'cow' in the config's data; ")
    meta.clear()
    assert notes('a', 'b', 'c') == []


def test_names_of_a_model_are_its_checkpoints_or_its_data_sets() -> None:
    pytest.importorskip('mmdet')
    inner = {'type': 'CocoDataset', 'metainfo': {'classes': ['a', 'b'], 'palette': [[1, 2, 3], [4, 5, 6]]}}
    cfg = {'val_dataloader': {'dataset': {'type': 'RepeatDataset', 'dataset': inner}}}
    metainfo = {'classes': ('a', 'b'), 'palette': [(1, 2, 3), (4, 5, 6)]}
    assert named_classes(None, cfg) == named_classes({'epoch': 3}, cfg) == metainfo
    assert named_classes({'classes': ['c'], 'palette': 'coco'}, cfg) == {'classes': ('c',)}
    coco = {'test_dataloader': {'dataset': {'type': 'CocoDataset'}}, **cfg}
    assert named_classes({}, coco)['classes'] == tuple(parse_class_names('coco'))
    with pytest.raises(InputError, match='neither the checkpoint nor the config'):
        named_classes(None, {'test_dataloader': {'dataset': {'type': 'CocoDataset', 'metainfo': {'classes': 'a'}}}})
