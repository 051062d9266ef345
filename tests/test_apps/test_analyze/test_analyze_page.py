"""The page of charts."""

from __future__ import annotations

import re

import pytest

from mmdet_iouquery.apps.analyze.page import STYLE


def luminance(colour: str) -> float:
    """Relative luminance of ``#rgb`` or ``#rrggbb`` (WCAG 2)."""
    digits = colour[1:] if len(colour) == 7 else ''.join(2 * digit for digit in colour[1:])
    parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    linear = [channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4 for channel in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_text_can_be_read_in_both_schemes(scheme: str) -> None:
    """By WCAG 2's contrast of 4.5 to 1, on the page and on a note; no colour is outside of the schemes."""
    of_schemes = re.findall(r':root \{(.*?)\}', STYLE)
    assert len(of_schemes) == 2 and 'color-scheme: light dark' in of_schemes[0]
    colours = dict(re.findall(r'--(\w+): (#\w+)', of_schemes[scheme == 'dark']))
    for text, ground in (('text', 'page'), ('text', 'note'), ('quiet', 'page')):
        light, dark = sorted((luminance(colours[text]), luminance(colours[ground])), reverse=True)
        assert (light + 0.05) / (dark + 0.05) > 4.5
    assert (luminance(colours['page']) > 0.5) is (scheme == 'light')
    assert not re.search('#[0-9a-f]{3}', STYLE.replace(of_schemes[0], '').replace(of_schemes[1], ''))
