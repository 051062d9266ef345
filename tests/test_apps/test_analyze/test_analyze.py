"""tools/analyze_queries.py: its numbers against another way to them, its files, and what it says to bad input."""

from __future__ import annotations

import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import take_family
from hosts import HOSTS, host_config
from matplotlib.figure import Figure
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from tolerances import within

from mmdet_iouquery import CocoSet, find_coco_set
from mmdet_iouquery.apps.analyze import analyze
from mmdet_iouquery.apps.quickstart.command import config_text
from mmdet_iouquery.apps.quickstart.digits import build_digits
from mmdet_iouquery.engine.detector import adapter_of, load_detector
from mmdet_iouquery.errors import InputError

SIZE, QUERIES, NUM_IMAGES = 64, 12, 4


@pytest.fixture(scope='module')
def digits(tmp_path_factory: pytest.TempPathFactory) -> CocoSet:
    root = tmp_path_factory.mktemp('data') / 'digits'
    return find_coco_set(build_digits(root, num_train=2, num_val=NUM_IMAGES, image_size=96, progress=False))


class Trained:
    """Configs with checkpoints of random weights."""

    def __init__(self, digits: CocoSet, folder: Path) -> None:
        self.base = config_text(digits, iters=2, image_size=SIZE)
        self.folder = folder

    def __call__(self, name: str, seed: int = 0, **changes: Any) -> list[str]:
        """Config and checkpoint; ``changes`` are dotted keys, dots written as two underscores."""
        path = self.folder / f'{name}.py'
        cfg = Config.fromfile(self._file(self.base))
        few = {'model.bbox_head.query_selector.num_queries': QUERIES, 'model.bbox_head.denoising.num_denoising': 4}
        cfg.merge_from_dict({**few, **{key.replace('__', '.'): value for key, value in changes.items()}})
        return self.save(cfg, path, seed)

    def host(self, name: str) -> list[str]:
        """One of mmdet's own detectors, by its own name."""
        cfg = Config.fromfile(self._file(self.base))
        model = host_config(name)
        model.bbox_head.num_classes = 10
        model.type = name
        cfg.model = model
        return self.save(cfg, self.folder / f'{name}.py', 0)

    def family(self, name: str) -> list[str]:
        """A narrow detector of :data:`helpers.FAMILY`."""
        cfg = Config.fromfile(self._file(self.base))
        take_family(cfg, name, bbox_head__query_selector__num_queries=QUERIES)
        return self.save(cfg, self.folder / f'{name}.py', 0)

    def save(self, cfg: Config, path: Path, seed: int) -> list[str]:
        cfg.dump(path)
        cfg.model.backbone.init_cfg = None
        torch.manual_seed(seed)
        model = MODELS.build(cfg.model)
        model.init_weights()
        checkpoint = path.with_name(f'{path.stem}_{seed}') / 'epoch_1.pth'
        checkpoint.parent.mkdir(exist_ok=True)
        torch.save({'state_dict': model.state_dict()}, checkpoint)
        return [str(path), str(checkpoint)]

    def _file(self, text: str) -> Path:
        path = self.folder / 'base.py'
        path.write_text(text)
        return path


@pytest.fixture
def drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures as PNG files alone: for what is not about the SVG files and the images within the page."""

    def save(self: Figure, file: Any, *, format: str, original: Any = Figure.savefig, **options: Any) -> None:
        if isinstance(file, Path) and format == 'png':
            original(self, file, format=format, **options)

    monkeypatch.setattr(Figure, 'savefig', save)


@pytest.fixture
def trained(digits: CocoSet, tmp_path: Path) -> Trained:
    return Trained(digits, tmp_path)


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline='') as file:
        return list(csv.DictReader(file))


def overlaps(config: str, checkpoint: str) -> list[tuple[float, float]]:
    """Score and IoU of every selected query of every image, by loops, from the model's own tensors."""
    cfg = Config.fromfile(config)
    cfg.model.backbone.init_cfg = None
    model = MODELS.build(cfg.model).eval()
    model.load_state_dict(torch.load(checkpoint)['state_dict'])
    dataset = DATASETS.build({**cfg.val_dataloader.dataset, 'test_mode': True})
    truth = json.loads(Path(cfg.val_evaluator[0].ann_file).read_text())
    pairs = []
    for element in dataset:
        batch = model.data_preprocessor({key: [value] for key, value in element.items()}, False)
        with torch.no_grad():
            head = model.bbox_head
            selection = head.query_selector(head.memory(model.extract_feat(batch['inputs']), batch['data_samples']))
        meta = element['data_samples'].metainfo
        boxes = [a['bbox'] for a in truth['annotations'] if a['image_id'] == meta['img_id']]
        width, height = (SIZE / scale for scale in meta['scale_factor'])
        for logits, (cx, cy, w, h) in zip(selection.encoder.logits[0, 0], selection.encoder.boxes[0, 0].tolist()):
            box = ((cx - w / 2) * width, (cy - h / 2) * height, (cx + w / 2) * width, (cy + h / 2) * height)
            best = 0.0
            for x, y, bw, bh in boxes:
                inner = max(0.0, min(box[2], x + bw) - max(box[0], x)) * max(0.0, min(box[3], y + bh) - max(box[1], y))
                best = max(best, inner / ((box[2] - box[0]) * (box[3] - box[1]) + bw * bh - inner))
            pairs.append((float(logits.max().sigmoid()), best))
    return pairs


class Links(HTMLParser):
    """Names of files that a page links to, and how many images it holds."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.inside: list[bool] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        if tag == 'a' and not (values['href'] or '').startswith('#'):
            self.links.append(values['href'] or '')
        if tag == 'img':
            self.inside.append((values['src'] or '').startswith('data:image/png;base64,'))


def test_numbers_figures_and_page(trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two seeds of one config and one of another: every number equals one computed by loops; the page is whole."""
    vanilla = {'model__bbox_head__query_selector': {'type': 'ClassScoreQuerySelector', 'num_queries': QUERIES}}
    first, second = trained('aware'), trained('aware', seed=1)
    models = [*first, *second, *trained('vanilla', **vanilla)]
    out = tmp_path / 'out'
    analyze([*models, '--out', str(out), '--pictures', '1', '--temperatures', '20'])

    numbers = json.loads((out / 'selection.json').read_text())
    assert [row['model'] for row in numbers] == ['aware', 'aware', 'vanilla']
    points = rows_of(out / 'selection-quality.csv')
    assert len(points) == 3 * NUM_IMAGES * QUERIES
    for run, pair in enumerate((first, second)):
        expected = np.array(overlaps(*pair))
        drawn = [row for row in points if row['model'] == 'aware' and row['run'] == str(run)]
        assert np.allclose(
            [[float(row['score']), float(row['iou'])] for row in drawn], expected, **within(torch.float32)
        )
        assert numbers[run]['queries'] == len(expected)
        assert numbers[run]['iou_above'] == int((expected[:, 1] > 0.5).sum())
        assert numbers[run]['both_above'] == int((expected > 0.5).all(1).sum())

    page = (out / 'index.html').read_text()
    assert 'Edges as distributions' not in page  # none of them tells of any
    links = Links()
    links.feed(page)
    assert links.inside and all(links.inside) and 'http' not in ''.join(links.links)
    assert links.links and all((out / link).is_file() for link in links.links)
    charts = {Path(link).stem for link in links.links}
    wanted = {'selection-quality', 'selection-thresholds', 'tokens-aware-1', 'denoising-vanilla-1', 'attention-aware-1'}
    assert wanted | {'temperature'} <= charts
    output = capsys.readouterr().out
    assert (
        'note: no learning curve of ' in output
        and "holds no log of mmengine's" in output
        and 'attention by position' not in output  # of these decoders there is none
    )
    assert 'both score and IoU above 0.5 in 0 of 48 selected queries' in output


@pytest.mark.usefixtures('drawn_once')
@pytest.mark.parametrize('name', ['DETR', 'DABDETR', 'DeformableDETR', 'DINO'])
def test_mmdets_own_detectors(name: str, trained: Trained, tmp_path: Path) -> None:
    out = tmp_path / 'out'
    analyze([*trained.host(name), '--out', str(out), '--pictures', '1', '--images', '2', '--temperatures', '20'])
    page = (out / 'index.html').read_text()
    selects = name in ('DeformableDETR', 'DINO')
    assert (out / 'selection-quality.png').is_file() == selects == (out / f'tokens-{name.lower()}-1.png').is_file() or (
        name == 'DABDETR'  # its anchors are drawn instead of tokens
    )
    assert ('Their queries are learned' in page) == (not selects)
    assert (out / f'attention-{name.lower()}-1.png').is_file()
    assert (out / 'positional-attention.png').is_file() == (not selects)
    assert (out / f'denoising-{name.lower()}-1.png').is_file() == (name == 'DINO')


@pytest.mark.usefixtures('drawn_once')
def test_edges_of_the_models_that_tell_of_them(trained: Trained, tmp_path: Path) -> None:
    few = ['--pictures', '1', '--images', '2', '--temperatures', '20']
    names = {'DEIMv2-Atto': 3, 'ECDet-S': 2}
    models = [*trained('plain'), *(word for name in names for word in trained.family(name))]
    out = tmp_path / 'out'
    analyze([*models, '--out', str(out), *few])
    page = (out / 'index.html').read_text()
    assert 'plain: its decoder gives boxes, and no distributions of their edges' in page
    for name, num_layers in names.items():
        # a heading and what it shows
        assert page.count(f'Edges as distributions, layer by layer: {name}') == 2
        bins = [row for row in rows_of(out / f'edges-{name.lower()}-1.csv') if row['kind'] == 'bin']
        by_edge: dict[tuple[str, ...], float] = {}
        for row in bins:
            key = tuple(row[name] for name in ('query', 'edge', 'layer'))
            by_edge[key] = by_edge.get(key, 0.0) + float(row['probability'])
        assert len(by_edge) % (4 * num_layers) == 0 and np.allclose([*by_edge.values()], 1)


def test_an_adapter_stands_for_its_parent() -> None:
    assert adapter_of('DINO') == 'IoUQueryDINO' == adapter_of('mmdet.DINO')
    assert adapter_of('SingleStageDetector') == 'SingleStageDetector'
    assert {adapter_of(name) for name in HOSTS} == {host.adapter for host in HOSTS.values()}


def test_weights_that_do_not_fit_are_refused(trained: Trained) -> None:
    config, _ = trained('aware')
    _, other = trained('other', model__bbox_head__decoder__num_layers=2)
    with pytest.raises(InputError, match='does not fit the model'):
        load_detector(Config.fromfile(config), other)


def test_bad_input_is_said_in_a_sentence(trained: Trained, digits: CocoSet, tmp_path: Path) -> None:
    config, checkpoint = trained('aware')
    out = ['--out', str(tmp_path / 'out')]
    for words, message in (
        ([config], 'models come in pairs of config and checkpoint, and there are 1 words'),
        ([config, '/nowhere.pth'], 'there is no file /nowhere.pth'),
        (['nowhere.py', checkpoint], 'there is no shipped config'),
        ([config, checkpoint, '--names', 'a', 'b'], '--names gives 2 names for 1 models'),
    ):
        with pytest.raises(InputError, match=re.escape(message)):
            analyze([*words, *out])
    assert not (tmp_path / 'out').exists()


def test_a_set_without_objects_is_refused(trained: Trained, digits: CocoSet, tmp_path: Path) -> None:
    content = json.loads(Path(digits.val_ann).read_text())
    empty = tmp_path / 'empty.json'
    empty.write_text(json.dumps({**content, 'annotations': []}))
    changes = {'val_dataloader__dataset__ann_file': str(empty)}
    with pytest.raises(InputError, match=r'has no annotated object in 4 images|without.*annotation|no box'):
        analyze([*trained('aware', **changes), '--out', str(tmp_path / 'out')])


def test_models_are_compared_on_the_same_images(trained: Trained, digits: CocoSet, tmp_path: Path) -> None:
    content = json.loads(Path(digits.val_ann).read_text())
    fewer = tmp_path / 'fewer.json'
    fewer.write_text(json.dumps({**content, 'images': content['images'][1:]}))
    ids = {image['id'] for image in content['images'][1:]}
    kept = [a for a in content['annotations'] if a['image_id'] in ids]
    fewer.write_text(json.dumps({**content, 'images': content['images'][1:], 'annotations': kept}))
    other = trained('other', val_dataloader__dataset__ann_file=str(fewer))
    with pytest.raises(InputError, match='names other images than'):
        analyze([*trained('aware'), *other, '--out', str(tmp_path / 'out'), '--images', '2'])


def test_a_detector_without_queries_is_refused(trained: Trained, tmp_path: Path) -> None:
    cfg = Config.fromfile(trained('aware')[0])
    cfg.model.bbox_head = {'type': 'FCOSHead', 'num_classes': 10, 'in_channels': 256, 'strides': [8, 16, 32]}
    cfg.model.bbox_head.regress_ranges = ((-1, 64), (64, 128), (128, 1e8))
    with pytest.raises(InputError, match='has no queries to look at: name a detector with an RTDETRHead'):
        analyze([*trained.save(cfg, tmp_path / 'fcos.py', 0), '--out', str(tmp_path / 'out')])


@pytest.mark.usefixtures('drawn_once')
def test_an_image_without_objects(trained: Trained, digits: CocoSet, tmp_path: Path) -> None:
    """Its queries count with an IoU of 0, and it is not among the images drawn."""
    content = json.loads(Path(digits.val_ann).read_text())
    first = content['images'][0]
    kept = [a for a in content['annotations'] if a['image_id'] != first['id']]
    path = tmp_path / 'first_empty.json'
    path.write_text(json.dumps({**content, 'annotations': kept}))
    out = tmp_path / 'out'
    changes = {'val_dataloader__dataset__ann_file': str(path)}
    analyze([*trained('aware', **changes), '--out', str(out), '--pictures', '1'])
    points = rows_of(out / 'selection-quality.csv')
    assert {float(row['iou']) for row in points if row['image'] == '0'} == {0.0} and len(points) == NUM_IMAGES * QUERIES
    assert any(float(row['iou']) > 0 for row in points)
