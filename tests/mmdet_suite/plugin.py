"""The pytest plugin that mmdet's tests are run with: ``-p mmdet_suite.plugin``, with ``--adapters`` for the adapters.

It imports ``mmdet_iouquery`` before mmdet, keeps pretrained weights from being fetched, seeds every test, and leaves
out what :mod:`mmdet_suite.selection` names and what ends at a compiled operator that is not there. Everything that was
not run is listed at the end, with the reason.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import mmdet_iouquery
from mmdet_iouquery import compat

# isort: split
import mmcv
import mmdet
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.model.weight_init import PretrainedInit

from .selection import ADAPTED, MODELS_FOLDER, adapter_of, left_out, missing_operator, registered_over

_left_out: dict[str, list[str]] = defaultdict(list)
_built: Counter[str] = Counter()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption('--adapters', action='store_true', help='build the adapters where a test names their parents')


def pytest_configure() -> None:
    PretrainedInit.__call__ = lambda self, module: None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    reasons = {item: left_out(item.path) for item in items}
    for item, reason in reasons.items():
        if reason is not None:
            _left_out[reason].append(item.nodeid)
    config.hook.pytest_deselected(items=[item for item, reason in reasons.items() if reason is not None])
    items[:] = [item for item, reason in reasons.items() if reason is None]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _adapter(request: pytest.FixtureRequest) -> Iterator[None]:
    """With ``--adapters``, the adapter under its parent's name; a test that has not built it ends in an error."""
    if not request.config.getoption('adapters'):
        yield
        return
    parent = ADAPTED[request.path.name]
    adapter = adapter_of(MODELS, parent)
    with registered_over(MODELS, {parent: adapter}) as made:
        yield
    assert made[parent], f'{request.node.nodeid} built no {adapter.__name__}'
    _built[adapter.__name__] += made[parent]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Any:
    report = yield
    operator = missing_operator(call.excinfo.value, item.path.name) if report.failed and call.excinfo else None
    if operator is not None:
        reason = f'needs the compiled mmcv operator {operator}'
        report.outcome, report.longrepr = 'skipped', (str(item.path), item.location[1], reason)
    if report.skipped:
        _left_out[report.longrepr[2].removeprefix('Skipped: ')].append(item.nodeid)
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for reason, names in sorted(_left_out.items()):
        terminalreporter.section(f'not run, {len(names)}: {reason}')
        for name in names:
            terminalreporter.line(name.removeprefix(f'{MODELS_FOLDER}/'))
    if _built:
        terminalreporter.section('adapters built')
        for name, number in sorted(_built.items()):
            terminalreporter.line(f'{name}: {number}')
    terminalreporter.section('what was tested')
    terminalreporter.line(
        f'mmdet {mmdet.__version__} in {os.path.realpath(os.path.dirname(mmdet.__file__))}, mmcv {mmcv.__version__} '
        f'(operators: {compat.ops_state()}), torch {torch.__version__}, mmdet_iouquery {mmdet_iouquery.__version__}'
    )
