"""The reference has all that is public, each with a docstring whose references lead somewhere."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

import mmdet_iouquery  # noqa: F401  before mmdet: it may have to stand in for compiled operators

pytest.importorskip('griffe')  # for Python 3.10 and newer

import griffe
from mmdet import registry as of_mmdet
from mmengine import registry as of_mmengine
from site_pages import code, docstrings, links, prose, reference

from mmdet_iouquery import registry as of_this_package


def test_the_reference_is_whole() -> None:
    assert reference.mistakes() == []


def test_what_is_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(code.PUBLIC, 'mmdet_iouquery.config_files', ('_hint',))
    monkeypatch.delitem(reference.PARTS, 'necks')
    code.entries.cache_clear()
    wrong = reference.mistakes()
    code.entries.cache_clear()
    assert sorted(text.partition(';')[0] for text in wrong) == [
        'mmdet_iouquery.config_files._hint is public and has no docstring',
        'mmdet_iouquery.models.necks.hybrid_encoder.HybridEncoder is registered, and no page of the reference is for '
        'models.necks',
        'mmdet_iouquery.models.necks.lite_encoder.LiteEncoder is registered, and no page of the reference is for '
        'models.necks',
    ]
    text = 'def f(a):\n    """Say.\n\n    Args:\n        a, b: what.\n    """\n'
    assert reference.wrong_arguments(griffe.visit('m', Path('m.py'), text)['f']) == [
        "the docstring of m.f has 'b', which it does not take"
    ]


def test_every_registered_class_is_in_it() -> None:
    """Read from the source on the one hand, filled into registries by the import on the other."""
    for module in ('mmdet_iouquery.deploy.exported', *code.PUBLIC):
        importlib.import_module(module)
    registries = {
        f'{module.__name__}.{name}': registry
        for module in (of_mmdet, of_mmengine, of_this_package)
        for name, registry in vars(module).items()
        if isinstance(registry, of_mmengine.Registry) and not name.startswith('MMENGINE_')
    }
    filled = {
        (path, name, part.__module__)
        for path, registry in registries.items()
        for name, part in registry.module_dict.items()
        if part.__module__.startswith('mmdet_iouquery.') and not part.__module__.startswith(code.UNREGISTERED)
    }
    assert filled == {
        (path, name, entry.source.module.path) for entry in code.registered() for path, name in entry.names.items()
    }


def test_every_reference_in_a_docstring_leads_somewhere() -> None:
    described = [obj for obj in code.objects().values() if obj.docstring is not None]
    texts = [docstrings.markdown(obj.docstring.value, obj) for obj in described]
    assert sum(text.count('][mmdet_iouquery.') for text in texts) > 60
    assert not [text for text in texts if ':class:`' in text or ':func:`' in text]


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        (':class:`Memory`', '[`Memory`][mmdet_iouquery.structures.Memory]'),
        (':func:`~mmdet_iouquery.core.grid_anchors`', '[`grid_anchors`][mmdet_iouquery.core.anchors.grid_anchors]'),
        (':mod:`zipfile` and ``x``', '`zipfile` and ``x``'),
        ('So::\n\n    x', 'So:\n\n    x'),
        ('::\n\n    x', '    x'),
        ('=== ==\na   b\n=== ==\nc   d\n    e\n=== ==', '\n| a | b |\n| --- | --- |\n| c | d e |\n'),
    ],
)
def test_docstrings_become_markdown(text: str, expected: str) -> None:
    assert docstrings.markdown(text, code.packages()['mmdet_iouquery.structures']) == expected


def test_a_reference_to_nothing_is_told() -> None:
    scope = code.packages()['mmdet_iouquery.structures.Memory']
    with pytest.raises(
        NameError, match=r"structures\.py, docstring of mmdet_iouquery\.structures\.Memory: .*'Nothing'"
    ):
        docstrings.markdown(':class:`Nothing`', scope)


def test_a_page_links_to_what_it_names() -> None:
    text = (
        '# `HybridEncoder`\n\n`HybridEncoder` of `core/boxes.py`, `Encoder` of `core/none.py`, `finetune/NAME`, '
        '[`HybridEncoder`](quickstart.jpg)\n\n```\n`HybridEncoder`\n```\n'
    )
    config = 'finetune/rtdetr_r18vd_finetune_coco-style.py'
    page = f'reference/configs/{config.replace(".py", "").replace("/", ".md#")}'
    source = links.file_link('mmdet_iouquery/core/boxes.py')
    expected = text.replace('NAME', config).replace(f'`{config}`', f'[`{config}`]({page})')
    expected = expected.replace('`core/boxes.py`', f'[`core/boxes.py`]({source})')
    entry = '\n\n[`HybridEncoder`][mmdet_iouquery.models.necks.hybrid_encoder.HybridEncoder] of'
    expected = expected.replace('\n\n`HybridEncoder` of', entry)
    assert prose.prose(text.replace('NAME', config), 'docs/data.md', 'data.md') == expected


def test_a_link_that_is_called_by_its_file_is_called_by_its_title_on_the_site() -> None:
    text = 'See [scale.md](scale.md), [docs/hub.md](../docs/hub.md#x) and [the hub](hub.md).'
    titles = [
        (links.ROOT / 'docs' / name).read_text(encoding='utf-8').partition('\n')[0][2:]
        for name in ('scale.md', 'hub.md')
    ]
    expected = f'See [{titles[0]}](scale.md), [{titles[1]}](../docs/hub.md#x) and [the hub](hub.md).'
    assert prose.with_titles(text, 'docs/data.md') == expected


def test_what_is_a_list_on_github_is_one_on_the_site() -> None:
    markdown = 'A:\n- a\n  b\n- c\n\n1. d\n\n   ```\n   - e\n     f\n   ```\n2. g\n3. h\n\n```\ni:\n- j\n```\nk\n- l\n'
    expected = (
        'A:\n\n- a\n    b\n- c\n\n1. d\n\n    ```\n    - e\n      f\n    ```\n\n2. g\n3. h\n\n'
        '```\ni:\n- j\n```\nk\n\n- l\n'
    )
    assert prose.with_lists(markdown) == expected
    assert prose.with_lists(expected) == expected
