"""A page for each folder of configs: what it says of itself, and every config with what it inherits and its figures."""

from __future__ import annotations

import ast
import posixpath
from collections.abc import Iterator

from mmdet_iouquery.apps.configs.command import Entry, entries
from mmdet_iouquery.config_files import config_root

from .links import ROOT, file_link, slug
from .prose import prose

CONFIGS = ROOT / 'configs'
TITLES = {
    'rtdetr': 'RT-DETR',
    'rtdetrv2': 'RT-DETRv2',
    'dfine': 'D-FINE',
    'deim': 'DEIM',
    'deimv2': 'DEIMv2',
    'ecdet': 'ECDet',
    'rtdetrv4': 'RT-DETRv4',
    'quickstart': 'Quickstart',
    'finetune': 'Fine-tuning',
    'ablations': 'Ablations',
    'dino': 'DINO',
    'deformable_detr': 'Deformable DETR',
    'ddq': 'DDQ',
    'dab_detr': 'DAB-DETR',
    'conditional_detr': 'Conditional DETR',
    'detr': 'DETR',
    'retinanet': 'RetinaNet',
    'fcos': 'FCOS',
    'atss': 'ATSS',
    'rtmdet': 'RTMDet',
    'yolox': 'YOLOX',
}
"""Of folders, in the order of the page of all."""

OF_MMDET = 'https://github.com/open-mmlab/mmdetection/blob/main/configs/'


def pages() -> dict[str, str]:
    """The pages by their paths on the site."""
    assert config_root() == CONFIGS
    by_folder: dict[str, list[Entry]] = {folder: [] for folder in TITLES}
    for entry in entries():
        by_folder[entry.path.split('/')[0]].append(entry)
    bases = [path.relative_to(CONFIGS).as_posix() for path in sorted((CONFIGS / '_base_').rglob('*.py'))]
    texts = {f'reference/configs/{folder}.md': _folder_page(folder, known) for folder, known in by_folder.items()}
    texts['reference/configs/_base_.md'] = '# Shared pieces\n\nWhat configs inherit from, and no command takes.\n\n' + (
        '\n'.join(_section(path, 2) for path in bases)
    )
    return texts | {'reference/configs/index.md': _index(by_folder)}


def page_of(config: str) -> str:
    """The entry of a config, or of a shared piece, by its path in ``configs``."""
    return f'{config.split("/")[0]}.md#{slug(config.rsplit("/", 1)[-1].removesuffix(".py"))}'


def _index(by_folder: dict[str, list[Entry]]) -> str:
    text = (
        '# Configs\n\nEvery config that came with the package, by the name that commands take. AP is of boxes, in '
        'percent, on the data of the name; *whose* says who reports the figures. Of the others nothing is reported; '
        '[`iouquery compare`](../commands.md#iouquery-compare) measures. Their parameters and FLOPs were counted, by '
        '`make costs`, of one image of the size to which the config resizes.\n'
    )
    for folder, known in by_folder.items():
        text += f'\n## [{TITLES[folder]}]({folder}.md)\n\n' + _table(known)
    return text


def _folder_page(folder: str, known: list[Entry]) -> str:
    """What the folder's README says, if it has one, and its configs."""
    readme, text, level = CONFIGS / folder / 'README.md', f'# {TITLES[folder]}\n', 2
    if readme.is_file():
        text = readme.read_text(encoding='utf-8') + '\n## Configs\n'
        text, level = prose(text, f'configs/{folder}/README.md', f'reference/configs/{folder}.md'), 3
    return '\n'.join([text, *(_section(entry.path, level, entry) for entry in known)])


def _table(known: list[Entry]) -> str:
    """Those with figures, then the others."""
    reported = [entry for entry in known if any(_figures(entry))]
    others = [entry for entry in known if not any(_figures(entry))]
    tables = []
    if reported:
        rows = [[_named(entry), *_figures(entry)] for entry in reported]
        tables.append(_rows(['config', 'parameters', 'FLOPs', 'COCO AP', 'whose'], rows))
    if others:
        tables.append(_rows(['config', 'what it is'], [[_named(entry), _docstring(entry.path)] for entry in others]))
    return '\n'.join(tables)


def _named(entry: Entry) -> str:
    return f'[{entry.name}]({page_of(entry.path)})'


def _rows(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ['---'] * len(head), *rows]
    return '\n'.join(f'| {" | ".join(" ".join(cell.split()) for cell in line)} |' for line in lines) + '\n'


def _figures(entry: Entry) -> list[str]:
    return [
        '' if entry.parameters is None else f'{entry.parameters / 1e6:.3g} M',
        '' if entry.flops is None else f'{entry.flops / 1e9:.3g} G',
        '' if entry.ap is None else f'{entry.ap:.1f}',
        entry.reported_by or '',
    ]


def _section(path: str, level: int, entry: Entry | None = None) -> str:
    """A config: what it says, its figures and chain, and its text."""
    text = f'{"#" * level} {path.rsplit("/", 1)[-1].removesuffix(".py")}\n\n{_docstring(path)}\n\n'
    facts = [f'[`{path}`]({file_link(f"configs/{path}")})']
    if entry is not None:
        facts.append(f'name for commands: `{entry.name}`')
        labels = ('parameters', 'FLOPs', 'AP', 'by')
        facts += [f'{label} {figure}' for label, figure in zip(labels, _figures(entry)) if figure]
    text += ' · '.join(facts) + '\n{ .facts }\n\n'
    chain = '\n'.join(_chain(path))
    return text + (f'Inherits from\n\n{chain}\n\n' if chain else '') + f'```python\n{_body(path)}\n```\n'


def _chain(path: str, depth: int = 0) -> Iterator[str]:
    """What a config inherits from, as a list in a list."""
    for base in bases(path):
        indent = '    ' * depth
        if base.startswith('mmdet::'):
            yield f'{indent}- [`{base}`]({OF_MMDET}{base.removeprefix("mmdet::")})'
        else:
            yield f'{indent}- [`{base}`]({page_of(base)})'
            yield from _chain(base, depth + 1)


def bases(path: str) -> list[str]:
    """What ``_base_`` of a config names: paths in ``configs``, and those of mmdet's as they are."""
    for node in _tree(path).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == '_base_':
            named = ast.literal_eval(node.value)
            named = [named] if isinstance(named, str) else named
            folder = posixpath.dirname(path)
            return [base if '::' in base else posixpath.normpath(posixpath.join(folder, base)) for base in named]
    return []


def _docstring(path: str) -> str:
    return ast.get_docstring(_tree(path)) or ''


def _body(path: str) -> str:
    """The text of a config below its docstring."""
    text = (CONFIGS / path).read_text(encoding='utf-8')
    first = _tree(path).body[0]
    begins = first.end_lineno if isinstance(first, ast.Expr) else first.lineno - 1
    return '\n'.join(text.splitlines()[begins:]).strip('\n')


def _tree(path: str) -> ast.Module:
    return ast.parse((CONFIGS / path).read_text(encoding='utf-8'))
