"""Which form of data a folder or a file is, by what is in it."""

from __future__ import annotations

import mmap
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import InputError
from .coco_set import role_of
from .csv_boxes import is_boxes, read_csv
from .cvat import read_cvat
from .folder import Folder
from .label_studio import begins_as_list, read_label_studio
from .reading import Reading
from .voc import read_voc
from .xml_file import root_tag
from .yolo import describes_yolo, has_labels, names_files, read_yolo

_COCO_KEYS = (b'"images"', b'"annotations"', b'"categories"')
_LOOKED_FOR = (
    'COCO (annotations/train.json, val.json), YOLO (data.yaml, or images/ and labels/ with classes.txt), Pascal VOC '
    '(Annotations/*.xml with JPEGImages/, or XML files beside the images), a CSV with a header such as '
    'image,class,xmin,ymin,xmax,ymax, an export of Label Studio (JSON) or of CVAT (annotations.xml)'
)


@dataclass(frozen=True)
class Form:
    """A form that was found: its name, the files that show it, and what reads it; None for COCO."""

    name: str
    shown_by: tuple[Path, ...]
    read: Callable[[], Reading] | None


def form_of_folder(folder: Folder) -> Form:
    """The form of a folder.

    Where COCO's JSON is found it is taken, whatever lies beside it.

    Raises:
        InputError: it is none that is known, or several; the message says what was looked for and what is there.
    """
    lists: list[Path] = []
    others: list[Path] = []
    for path in sorted([*folder.root.glob('*.json'), *folder.root.glob('*/*.json')]):  # large sets are not walked
        if path.parent == folder.without or path.name.startswith('.'):
            continue
        (lists if begins_as_list(path) else others).append(path)
    if coco := tuple(path for path in others if _is_coco(path)):
        return Form('COCO', coco, None)
    forms = [form for form in (_yolo(folder), *_of_xml(folder), _csv(folder), _label_studio(folder, lists)) if form]
    if len(forms) > 1:
        signs = '; '.join(f'{form.name} ({_shown(folder, form.shown_by)})' for form in forms)
        raise InputError(
            f'{folder.root} holds labels in several forms: {signs}; give the path of the file that is right '
            '(data.yaml, the CSV, the export), or move the others away'
        )
    if forms:
        return forms[0]
    if others and folder.images.paths:
        return Form('COCO', tuple(others), None)  # which says what is wrong with them
    tables = folder.with_suffix('.csv', '.tsv', depth=1)
    if len(tables) == 1 and folder.images.paths:
        return Form('CSV', tuple(tables), lambda: read_csv(folder, tables))  # which says what is wrong with it
    raise InputError(
        f'{folder.root} is no set in a form that is known; arrange it as one of these: {_LOOKED_FOR}. '
        f'{_content(folder)}'
    )


def form_of_file(path: Path, folder: Folder) -> Form:
    """The form of a file, whose images are in ``folder``.

    Raises:
        InputError: its ending is none that is known.
    """
    suffix = path.suffix.lower()
    if suffix in ('.yaml', '.yml', '.data'):
        return Form('YOLO', (path,), lambda: read_yolo(folder, path))
    if suffix in ('.csv', '.tsv'):
        return Form('CSV', (path,), lambda: read_csv(folder, [path]))
    if suffix == '.xml':
        return Form('CVAT', (path,), lambda: read_cvat(folder, [path]))
    if suffix == '.json':
        if begins_as_list(path):
            return Form('Label Studio', (path,), lambda: read_label_studio(folder, [path]))
        return Form('COCO', (path,), None)
    raise InputError(
        f'{path} is no file that labels are read from; name one of these: {_LOOKED_FOR}; or a zip of one of these'
    )


def _is_coco(path: Path) -> bool:
    """Whether a JSON has COCO's keys anywhere, without parsing it."""
    try:
        with open(path, 'rb') as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return all(content.find(key) >= 0 for key in _COCO_KEYS)
    except (OSError, ValueError):  # ValueError: it is empty
        return False


def _yolo(folder: Folder) -> Form | None:
    described = [path for path in folder.with_suffix('.yaml', '.yml', '.data', depth=1) if describes_yolo(path)]
    if len(described) > 1:
        raise InputError(f'{folder.root} has several descriptions: {_shown(folder, described)}; give the path of one')
    if described:
        return Form('YOLO', tuple(described), lambda: read_yolo(folder, described[0]))
    if has_labels(folder.images):
        return Form('YOLO', tuple(names_files(folder)) or (folder.root,), lambda: read_yolo(folder, None))
    return None


def _of_xml(folder: Folder) -> list[Form]:
    """Of XML files, by the outermost element of the first in each folder."""
    by_folder: dict[Path, list[Path]] = {}
    for path in folder.with_suffix('.xml'):
        by_folder.setdefault(path.parent, []).append(path)
    tags = {parent: root_tag(files[0]) for parent, files in by_folder.items()}
    voc = [path for parent, files in by_folder.items() if tags[parent] == 'annotation' for path in files]
    cvat = [path for parent, files in by_folder.items() if tags[parent] == 'annotations' for path in files]
    forms = []
    if voc:
        forms.append(Form('Pascal VOC', tuple(voc), lambda: read_voc(folder, voc)))
    if cvat:
        files = _by_split(folder, cvat, 'exports of CVAT')
        forms.append(Form('CVAT', tuple(files), lambda: read_cvat(folder, files)))
    return forms


def _csv(folder: Folder) -> Form | None:
    files = [path for path in folder.with_suffix('.csv', '.tsv', depth=1) if is_boxes(path)]
    if not files:
        return None
    csv_files = _by_split(folder, files, 'CSV files of boxes')
    return Form('CSV', tuple(csv_files), lambda: read_csv(folder, csv_files))


def _label_studio(folder: Folder, files: Sequence[Path]) -> Form | None:
    if not files:
        return None
    files = _by_split(folder, files, 'JSON files that are lists')
    return Form('Label Studio', tuple(files), lambda: read_label_studio(folder, files))


def _by_split(folder: Folder, files: Sequence[Path], kind: str) -> Sequence[Path]:
    """The files, if there is one, or one for each split; InputError else."""
    roles = Counter(role_of(path, folder.root) for path in files)
    if len(files) > 1 and (roles[''] or max(roles.values()) > 1):
        raise InputError(
            f'{folder.root} has several {kind}: {_shown(folder, files)}; give the path of one, or name them for '
            'their parts (train, val, test)'
        )
    return files


def _shown(folder: Folder, files: Sequence[Path]) -> str:
    return ', '.join(map(folder.name, files[:3])) + (', ...' if len(files) > 3 else '')


def _content(folder: Folder) -> str:
    """What is in a folder, for a message."""
    if not folder.files:
        return 'It holds no file'
    kinds = Counter(path.suffix.lower() or path.name for path in folder.files).most_common(6)
    folders = sorted({path.relative_to(folder.root).parts[0] for path in folder.files if path.parent != folder.root})
    below = f'; folders: {", ".join(f"{name}/" for name in folders[:8])}' if folders else ''
    return f'It holds {", ".join(f"{count} {kind}" for kind, count in kinds)}{below}'
