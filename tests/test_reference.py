"""The reference has all that is public, each with a docstring whose references lead somewhere."""

from __future__ import annotations

import importlib

import pytest

import mmdet_iouquery  # noqa: F401  before mmdet: it may have to stand in for compiled operators

pytest.importorskip('griffe')  # for Python 3.10 and newer

from mmdet import registry as of_mmdet
from mmengine import registry as of_mmengine
from site_pages import code, docstrings, prose, reference

from mmdet_iouquery import registry as of_this_package


def test_the_reference_is_whole() -> None:
    assert reference.mistakes() == []


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
        (path, name, one.source.module.path) for one in code.registered() for path, name in one.names.items()
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
    text = '# `HybridEncoder`\n\n`HybridEncoder`, [`HybridEncoder`](x.png) and `Encoder`\n\n```\n`HybridEncoder`\n```\n'
    linked = '[`HybridEncoder`][mmdet_iouquery.models.necks.hybrid_encoder.HybridEncoder]'
    found = prose.prose(text.replace('x.png', 'quickstart.jpg'), 'docs/data.md', 'data.md')
    assert found == text.replace('\n\n`HybridEncoder`', f'\n\n{linked}').replace('x.png', 'quickstart.jpg')
