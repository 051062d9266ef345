"""``iouquery configs``, and the names by which configs go."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path

import pytest
from mmengine.config import Config
from tolerances import about

from mmdet_iouquery.apps.configs.command import entries
from mmdet_iouquery.config_files import _RECIPE, COSTS, config_names, config_path, config_root
from mmdet_iouquery.errors import InputError
from mmdet_iouquery.main import main

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    ('name', 'path'),
    [
        ('rtdetr_r18vd', 'rtdetr/rtdetr_r18vd_8xb2-72e_coco.py'),  # not the quickstart's, nor the ablations'
        ('rtdetr_r50vd', 'rtdetr/rtdetr_r50vd_8xb2-72e_coco.py'),  # not that of rtdetr_r50vd_m
        ('rtdetr_r50vd_m', 'rtdetr/rtdetr_r50vd_m_8xb2-72e_coco.py'),
        ('rtdetr_r18vd_mal', 'rtdetr/rtdetr_r18vd_mal_8xb2-72e_coco.py'),
        ('rtdetr/rtdetr_r18vd', 'rtdetr/rtdetr_r18vd_8xb2-72e_coco.py'),
        ('rtdetr_r18vd.py', 'rtdetr/rtdetr_r18vd_8xb2-72e_coco.py'),
        ('rtdetr_r18vd_8xb2-72e_coco', 'rtdetr/rtdetr_r18vd_8xb2-72e_coco.py'),
        ('dfine_hgnetv2-s', 'dfine/dfine_hgnetv2-s_8xb4-132e_coco.py'),  # not that for Objects365
        ('dfine_hgnetv2-s_objects365', 'dfine/dfine_hgnetv2-s_objects365_8xb4-64e_coco.py'),
        ('quickstart/rtdetr_r18vd', 'quickstart/rtdetr_r18vd_digits.py'),
        ('rtdetr_r18vd_digits', 'quickstart/rtdetr_r18vd_digits.py'),
        ('rtdetr_r18vd_learned-anchors', 'ablations/rtdetr_r18vd_learned-anchors_128_digits.py'),
        ('rtdetr_r18vd_finetune', 'finetune/rtdetr_r18vd_finetune_coco-style.py'),
        ('retinanet_r50_hybrid-encoder', 'retinanet/retinanet_r50_hybrid-encoder_8xb2-1x_coco.py'),
    ],
)
def test_short_names(name: str, path: str) -> None:
    assert config_path(name) == str(config_root() / path)


def test_a_short_name_of_several_is_refused_with_all_of_them() -> None:
    both = 'ablations/generations/rtdetr_r18vd_128_digits.py, ablations/rtdetr_r18vd_128_digits.py'
    with pytest.raises(
        InputError, match=f"^the shipped config 'rtdetr_r18vd_128_digits' may be any of {both}; name one"
    ):
        config_path('rtdetr_r18vd_128_digits')


def test_a_path_is_told_as_a_path(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f'^{tmp_path} is a folder; name a config file in it'):
        config_path(str(tmp_path))
    (tmp_path / 'config.py').touch()
    with pytest.raises(InputError, match=f'is a folder; name {tmp_path}/config.py'):
        config_path(str(tmp_path))
    with pytest.raises(InputError, match=f'^there is no config {tmp_path}/gone/config.py, nor its folder; correct the'):
        config_path(str(tmp_path / 'gone' / 'config.py'))


@pytest.mark.parametrize('name', ['rtdetr', 'rtdetr_r18', 'rtdetr_r18vd_', 'r18vd', '.*', ''])
def test_what_is_no_short_name(name: str) -> None:
    with pytest.raises(InputError, match='no shipped config'):
        config_path(name)


def test_every_name_of_the_table_means_its_config() -> None:
    table = entries()
    assert [entry.path for entry in table] == config_names()
    for entry in table:
        assert config_path(entry.name) == str(config_root() / entry.path)
        assert re.search(f'{_RECIPE}\\.py$', entry.path), 'a recipe that short names do not know'


def test_figures_are_those_of_the_page_on_models() -> None:
    """Each row a backbone, each column a family."""
    page = (ROOT / 'docs' / 'models.md').read_text(encoding='utf-8')
    by_name = {entry.name: entry for entry in entries()}
    checked = 0
    for table in re.findall(r'(?:^\|.*\|\n)+', page, re.MULTILINE):
        heads, _, *rows = [[cell.strip() for cell in line.strip('|').split('|')] for line in table.splitlines()]
        families = [
            ''.join(re.findall(r'`(.*)`', head)) + ' with Objects365' * ('Objects365' in head) for head in heads[1:-3]
        ]
        for backbone, *aps, parameters, flops, licence in rows:
            assert ('#licence-of-weights' in licence) == (backbone.startswith('`vit-') or '`rtdetrv4_' in licence)
            for family, ap in zip(families, aps):
                if ap:
                    entry = by_name[_entry_name(family, backbone.strip('`'))]
                    assert (entry.ap, entry.reported_by) == (float(ap), 'authors')
                    deim = re.search(r'DEIM (\d+) M', parameters) if family == 'deim-rtdetrv2_' else None
                    millions = (deim or re.match(r'([\d.]+) M', parameters))[1]
                    digit = 1e5 if '.' in millions else 6e5
                    # the authors' are rounded, as on the page; those of the others were counted
                    assert entry.parameters == pytest.approx(float(millions) * 1e6, abs=digit, rel=0.02)
                    # a whole number of G, and of other counters
                    assert entry.flops == pytest.approx(float(flops.split()[0]) * 1e9, rel=0.03)
                    checked += 1
    assert checked == 45
    counted = by_name['rtdetr_r18vd_mal']
    assert counted[4:] == (None, None) and counted.parameters == 20_184_464
    assert counted.flops == pytest.approx(60e9, rel=0.03)  # a whole number of G


def test_every_config_was_counted() -> None:
    costs = json.loads((config_root() / COSTS).read_text(encoding='utf-8'))
    assert sorted(costs) == config_names(), 'make costs'
    cost_of = runpy.run_path(str(ROOT / 'docs' / 'costs.py'))['cost_of']
    for name in ('quickstart/rtdetr_r18vd_digits.py', 'quickstart/dfine_hgnetv2-n_digits.py'):
        assert cost_of(Config.fromfile(config_path(name))) == costs[name]


def _entry_name(family: str, backbone: str) -> str:
    if 'Objects365' in family:
        return f'{family.split()[0]}{backbone}_objects365'
    return family + backbone


def test_figures_of_the_readme_are_those_of_the_page_on_models() -> None:
    def aps(text: str) -> list[str]:
        return sorted(re.findall(r'(?<=\| )\d\d\.\d(?= \|)', text))

    readme = (ROOT / 'README.md').read_text(encoding='utf-8')
    assert aps(readme) == aps((ROOT / 'docs' / 'models.md').read_text(encoding='utf-8'))


@pytest.mark.parametrize('family', ['rtdetr', 'rtdetrv2', 'dfine', 'deim', 'deimv2'])
def test_figures_are_those_of_the_familys_page(family: str) -> None:
    lines = (ROOT / 'configs' / family / 'README.md').read_text(encoding='utf-8').splitlines()
    by_path = {entry.path: entry for entry in entries()}
    row_of = re.compile(r'\| \[[\w-]+\]\((\S+\.py)\) .*\| ([\d.]+) \| ([\d.]+) M \| ([\d.]+) G \|')
    rows = [row_of.match(line) for line in lines]
    rows_of_page = [row.groups() for row in rows if row]
    assert len(rows_of_page) >= 4
    for file, ap, parameters, flops in rows_of_page:
        entry = by_path[f'{family}/{file}']
        figures = float(ap), float(parameters) * 10**6, float(flops) * 10**9
        assert (entry.ap, entry.parameters, entry.flops) == about(figures, 'doubles')


def test_models_of_a_known_ap_stand_alone_unless_all_are_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    ap_of = {entry.path: entry.ap for entry in entries() if 'rtdetr' in entry.path}
    known = [path for path, ap in ap_of.items() if ap is not None]
    for more, paths in (([], known), (['--all'], [*ap_of])):
        assert main(['configs', 'rtdetr', *more]) == 0
        _, *rows = capsys.readouterr().out.splitlines()
        others = [] if more else [rows.pop()]
        assert sorted(row.split()[-1] for row in rows) == sorted(paths)
        assert all(line.startswith(f'and {len(ap_of) - len(known)} of which') for line in others)
    assert main(['configs', 'retinanet']) == 0  # where none is known, all
    assert 'retinanet/' in capsys.readouterr().out


def test_the_table_and_its_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(['configs', 'rtdetr_r18vd_8xb2']) == 0
    heads, row = capsys.readouterr().out.splitlines()
    assert heads.split() == ['name', 'parameters', 'FLOPs', 'COCO', 'AP', 'whose', 'file']
    assert row.split() == [
        'rtdetr_r18vd',
        '20',
        'M',
        '60',
        'G',
        '46.5',
        'authors',
        'rtdetr/rtdetr_r18vd_8xb2-72e_coco.py',
    ]
    assert main(['configs', '--json', 'RTDETR_R18vd_8xb2-72e_coco.py']) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert entry == {
        'name': 'rtdetr_r18vd',
        'path': 'rtdetr/rtdetr_r18vd_8xb2-72e_coco.py',
        'parameters': 20_000_000,
        'flops': 60_000_000_000,
        'ap': 46.5,
        'reported_by': 'authors',
    }


def test_models_with_figures_come_first(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(['configs', 'rtdetr', '--json']) == 0
    listed = json.loads(capsys.readouterr().out)
    names = [entry['name'] for entry in listed]
    assert names[0] == 'rtdetr_r18vd' and 4 < names.index('rtdetrv2_r18vd') < names.index('deim-rtdetrv2_r18vd')
    known = [entry['ap'] is not None for entry in listed]
    assert known == sorted(known, reverse=True) and any(known) and not all(known)


def test_a_family_is_listed_from_small_to_large(capsys: pytest.CaptureFixture[str]) -> None:
    """By parameters, not by letters, in which l comes before s and 101 before 18."""
    assert main(['configs', 'deim', '--json']) == 0
    names = [entry['name'] for entry in json.loads(capsys.readouterr().out)][:18]
    assert [name.partition('_')[2] for name in names] == [
        *(f'hgnetv2-{size}' for size in 'nsmlx'),
        *('r18vd', 'r34vd', 'r50vd_m', 'r50vd', 'r101vd'),
        *('hgnetv2-atto', 'hgnetv2-femto', 'hgnetv2-pico', 'hgnetv2-n'),
        *(f'vit-{size}' for size in 'smlx'),
    ]
    assert [name.partition('_')[0] for name in names] == ['deim-dfine'] * 5 + ['deim-rtdetrv2'] * 5 + ['deimv2'] * 8


def test_a_filter_that_nothing_fits_gets_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(['configs', 'rtdter_r18vd']) == 2
    output = capsys.readouterr().err
    assert "no shipped config has 'rtdter_r18vd' in its name; close to it: rtdetr_r18vd, " in output
    assert main(['configs', 'xyz']) == 2
    assert capsys.readouterr().err.endswith("has 'xyz' in its name; `iouquery configs` lists all\n")


def test_a_config_is_shown_with_what_its_bases_bring(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(['configs', '--show', 'rtdetr_r34vd']) == 0
    text = capsys.readouterr().out
    shown, whole = Config.fromstring(text, '.py'), Config.fromfile(config_path('rtdetr_r34vd'))
    assert shown.to_dict() == whole.to_dict() and '_base_' not in shown
