"""The reference's pages of registered parts and of Python: entries that mkdocstrings fills, under what they share."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import griffe

from . import code, docstrings

PARTS = {
    'backbones': ('Backbones', 'models.backbones'),
    'necks': ('Necks', 'models.necks'),
    'heads': ('Heads', 'models.dense_heads'),
    'query-selectors': ('Query selectors', 'models.query_selectors'),
    'denoising': ('Denoising', 'models.denoising'),
    'decoders': ('Decoders', 'models.decoders'),
    'losses': ('Criterion and losses', 'models.losses'),
    'hosts': ("mmdet's detectors", 'models.hosts'),
    'data': ('Data', 'datasets', 'models.data_preprocessors'),
    'training': ('Training', 'engine', 'engine.hooks', 'engine.logs', 'checkpoints'),
    'evaluation': ('Evaluation and deployment', 'evaluation', 'deploy'),
}
"""The pages of parts by name: a title, and the folders whose registered classes are on it."""


def pages() -> dict[str, str]:
    """The pages by their paths on the site."""
    texts = {'reference/parts/index.md': _index()}
    for page, (title, *folders) in PARTS.items():
        texts[f'reference/parts/{page}.md'] = _parts_page(title, _registered_in(folders))
    taken: set[str] = set()
    for module in code.PUBLIC:
        texts[f'reference/python/{module}.md'] = _module_page(module, taken)
    return texts


def mistakes() -> list[str]:
    """What keeps the reference from being whole."""
    folders = {folder for _, *folders in PARTS.values() for folder in folders}
    wrong = [
        f'{entry.source.path} is registered, and no page of the reference is for {entry.folder}; see PARTS in '
        f'{__file__}'
        for entry in code.registered()
        if entry.folder not in folders
    ]
    entries = code.entries()
    wrong += [f'{entry.path} is public and has no docstring' for entry in entries if not entry.has_docstring]
    return wrong + [text for entry in entries for text in wrong_arguments(entry)]


def wrong_arguments(obj: griffe.Object) -> list[str]:
    """What its docstring says of arguments that it does not take."""
    if not (obj.is_class or obj.is_function) or obj.docstring is None:
        return []
    if any(parameter.kind is griffe.ParameterKind.var_keyword for parameter in obj.parameters):
        return []  # which passes on what it describes
    taken = {parameter.name.lstrip('*') for parameter in obj.parameters}
    named = [
        name.strip(' *')
        for section in obj.docstring.parse('google', warnings=False)
        if section.kind is griffe.DocstringSectionKind.parameters
        for argument in section.value
        for name in argument.name.split(',')
    ]
    return [f'the docstring of {obj.path} has {name!r}, which it does not take' for name in named if name not in taken]


def _registered_in(folders: Sequence[str]) -> list[code.Registered]:
    return [entry for folder in folders for entry in code.registered() if entry.folder == folder]


def _index() -> str:
    rows = []
    for page, (title, *folders) in PARTS.items():
        rows.append(f'\n## [{title}]({page}.md)\n')
        rows.append('| type | what it is |\n| --- | --- |')
        for entry in _registered_in(folders):
            rows.append(f'| {_link(entry.source)} | {_summary(entry.source)} |')
    text = (
        '# Parts\n\nWhatever a config can name by its `type` once `mmdet_iouquery` is imported. Nearly all are '
        "registered in mmdet's registries, so that no prefix is needed.\n"
    )
    return text + '\n'.join(rows) + '\n'


def _parts_page(title: str, parts: Sequence[code.Registered]) -> str:
    modules: dict[str, list[griffe.Class]] = {}
    for entry in parts:
        modules.setdefault(entry.source.module.path, []).append(entry.source)
    overview = [
        f'{", ".join(map(_link, sources))}\n:   {textwrap.indent(_text(sources[0].module), "    ").lstrip()}\n'
        for sources in modules.values()
    ]
    entries = [_entry(entry.source.path) for entry in parts]
    return '\n'.join([f'# {title}\n', *overview, *entries])


def _module_page(module: str, taken: set[str]) -> str:
    """The page of a module for programs; what an earlier page has is a link, and ``taken`` grows by the others."""
    entries, links = [], []
    parts = {entry.source.path for entry in code.registered()}
    for name in code.public(module):
        source = code.definition(f'{module}.{name}')
        if source.path in taken | parts:
            links.append(f'- {_link(source)}: {_summary(source)}')
        else:
            taken.add(source.path)
            entries.append(_entry(source.path))
    if links:
        entries.append('## Also here\n\n' + '\n'.join(links) + '\n')
    return '\n'.join([f'# {module}\n', _text(code.packages()[module]) + '\n', *entries])


def _entry(path: str) -> str:
    return f'::: {path}\n'


def _link(source: griffe.Object) -> str:
    return f'[`{source.name}`][{source.path}]'


def _text(source: griffe.Object) -> str:
    """Its docstring as Markdown."""
    return docstrings.markdown(source.docstring.value, source) if source.docstring else ''


def _summary(source: griffe.Object) -> str:
    """The first paragraph of its docstring, in one line."""
    return ' '.join(_text(source).split('\n\n')[0].split()).replace('|', r'\|')
