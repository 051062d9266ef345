"""A tolerance is of the table, or has its reason beside it."""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
KEYWORDS = ('atol', 'rtol', 'abs', 'rel')


def without_reason(source: str) -> list[int]:
    """Lines with a number for a tolerance and no comment there or on the line above."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = {token.start[0] for token in tokens if token.type == tokenize.COMMENT}
    lines = {value.lineno for value in tolerances(ast.parse(source)) if any(map(is_number, ast.walk(value)))}
    return sorted(line for line in lines if not {line, line - 1} & comments)


def tolerances(tree: ast.Module) -> Iterator[ast.expr]:
    """Of calls and dicts."""
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg in KEYWORDS:
            yield node.value
        elif isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values):
                if isinstance(key, ast.Constant) and key.value in KEYWORDS:
                    yield value


def is_number(node: ast.AST) -> bool:
    """Zero asks for equality, which needs no reason."""
    return isinstance(node, ast.Constant) and isinstance(node.value, (int, float)) and node.value != 0


def test_every_tolerance_has_its_reason() -> None:
    lines = [
        f'{path.relative_to(TESTS)}:{line}'
        for path in sorted(TESTS.rglob('*.py'))
        for line in without_reason(path.read_text(encoding='utf-8'))
    ]
    assert not lines, 'take it from tolerances.py, or say beside it why it is so'


@pytest.mark.parametrize(
    ('source', 'lines'),
    [
        ('close(a, b, rtol=0, atol=1e-4)', [1]),
        ('close(a, b, atol=1e-4)  # px', []),
        ('# px\nclose(a, b, atol=1e-4)', []),
        ("close('# px', b, atol=2 * sigma)", [1]),
        ('close(\n    a,\n    b,\n    rel=-1e-4,\n)', [4]),
        ("CLOSE = {'rtol': 1e-5}", [1]),
        ('close(a, b, atol=limit, rtol=0, **within(dtype))', []),
    ],
)
def test_lines_without_a_reason(source: str, lines: list[int]) -> None:
    assert without_reason(source) == lines
