"""Detectors as folders: what is written, what opens them, and what is refused."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import re
import shutil
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from exported_files import write_model
from helpers import NARROW, random_batch, shipped_config
from mmdet.apis import DetInferencer, inference_detector, init_detector
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.runner import load_checkpoint
from tolerances import about
from torch import Tensor

from mmdet_iouquery import from_pretrained, push_to_hub, save_pretrained
from mmdet_iouquery.checkpoints import hub
from mmdet_iouquery.checkpoints.files import read_checkpoint
from mmdet_iouquery.checkpoints.flat_config import flat_config, parse_flat_config, read_flat_config
from mmdet_iouquery.checkpoints.model_card import DATA_OPTIONS
from mmdet_iouquery.checkpoints.safetensors_file import read_notes, write_safetensors
from mmdet_iouquery.config_files import config_names
from mmdet_iouquery.errors import InputError

pytest.importorskip('safetensors')

CLASSES = ('cat', 'dog', 'Äpfel', 'd', 'e')
PALETTE = [(220, 20, 60), (119, 11, 32), (0, 0, 142), (0, 0, 230), (106, 0, 228)]
SIZE = 96
FILES = {'config.py', 'model.safetensors', 'README.md'}


@pytest.fixture(scope='module')
def cfg() -> Config:
    """A narrow R18, with paths of this machine in it."""
    cfg = shipped_config('rtdetr/rtdetr_r18vd_8xb2-72e_coco.py')
    settings = {'bbox_head__num_classes': len(CLASSES), 'bbox_head__query_selector__num_queries': 20, **NARROW}
    cfg.merge_from_dict({f'model.{key.replace("__", ".")}': value for key, value in settings.items()})
    for dataset in (cfg.train_dataloader.dataset, cfg.test_dataloader.dataset):
        dataset.update(metainfo=dict(classes=CLASSES, palette=PALETTE), data_root='/home/me/sets/coco/')
        dataset.ann_file = '/home/me/sets/coco/annotations/a.json'
    cfg.test_dataloader.dataset.pipeline[1].scale = (SIZE, SIZE)
    cfg.test_evaluator.ann_file = '/home/me/sets/coco/annotations/a.json'
    cfg.model.backbone.init_cfg = dict(type='Pretrained', checkpoint='/home/me/weights/r18.pth')
    cfg.update(work_dir='/home/me/run', load_from='/home/me/weights/start.pth')
    return cfg


@pytest.fixture(scope='module')
def weights(cfg: Config) -> dict[str, Tensor]:
    torch.manual_seed(0)
    return MODELS.build(cfg.model).state_dict()


@pytest.fixture(scope='module')
def checkpoint(weights: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp('run') / 'epoch_3.pth'
    meta = {'dataset_meta': {'classes': CLASSES, 'palette': PALETTE}, 'epoch': 3}
    torch.save({'state_dict': weights, 'meta': meta, 'optimizer': {}}, path)
    return path


@pytest.fixture(scope='module')
def folder(checkpoint: Path, cfg: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path, before = tmp_path_factory.mktemp('hub') / 'pets', cfg.pretty_text
    assert save_pretrained(checkpoint, path, license='apache-2.0', config=cfg)
    assert cfg.pretty_text == before
    return path


@pytest.fixture(scope='module')
def exported(checkpoint: Path) -> Path:
    """A file that says it is of the checkpoint."""
    changes = {'checkpoint_sha256': hashlib.sha256(checkpoint.read_bytes()).hexdigest()}
    return write_model(checkpoint.parent / 'a.onnx', format_changes=changes)


@pytest.fixture(scope='module')
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (70, 100, 3), dtype=np.uint8)


# --- what is written --------------------------------------------------------------------------------------------------


def test_a_folder_holds_weights_names_and_nothing_of_this_machine(
    folder: Path, weights: dict[str, Tensor], cfg: Config
) -> None:
    assert {path.name for path in folder.iterdir()} == FILES and [*folder.parent.iterdir()] == [folder]
    content = read_checkpoint(folder)
    assert content['state_dict'].keys() == weights.keys()
    assert all(torch.equal(value, weights[key]) for key, value in content['state_dict'].items())
    assert content['meta']['dataset_meta']['classes'] == [*CLASSES]
    text = (folder / 'config.py').read_text(encoding='utf-8')
    assert '_base_' not in text and '/home' not in text and str(Path.home()) not in text
    assert not re.search(r"'(/|~|[A-Za-z]:\\)", text)
    assert len({file.stat().st_mode for file in folder.iterdir()}) == 1  # whoever may read one may read all


def test_a_config_keeps_all_but_paths(folder: Path, cfg: Config) -> None:
    """Its values are those that mmengine reads in the same file, which it runs."""
    plain = read_flat_config(folder / 'config.py')
    assert plain.to_dict() == Config.fromfile(folder / 'config.py').to_dict()
    dataset = plain.test_dataloader.dataset
    assert (dataset.data_root, dataset.ann_file) == ('coco/', 'annotations/a.json')
    assert plain.test_evaluator.ann_file == 'coco/annotations/a.json'
    assert plain.model.backbone.init_cfg is None
    assert {*cfg.to_dict()} - {*plain.to_dict()} == {'work_dir', 'load_from', 'resume'} & {*cfg.to_dict()}
    expected, own = cfg.model.to_dict(), plain.model.to_dict()
    expected['backbone']['init_cfg'] = None
    assert own == expected and plain.optim_wrapper == cfg.optim_wrapper


@pytest.mark.parametrize(
    ('entry', 'plain'),
    [
        ({'a': 'C:\\data\\x.json'}, {'a': 'x.json'}),
        ({'a': ['~/b/c/', 'd/e', 3]}, {'a': ['c/', 'd/e', 3]}),
        ({'a': ('/x/y', None)}, {'a': ('y', None)}),
        ({'type': 'torch.nn.modules.activation.GELU'}, {'type': 'GELU'}),
        ({'type': 'mmpretrain.ConvNeXt'}, {'type': 'mmpretrain.ConvNeXt'}),
        ({'url': 'https://a.b/c.pth'}, {'url': 'https://a.b/c.pth'}),
        ({'checkpoint': 'https://a.b/c.pth'}, {'checkpoint': 'https://a.b/c.pth'}),
        (
            {'data_root': '/s/t/u', 'data_prefix': {'img': '/s/t/u/v/'}},
            {'data_root': 'u', 'data_prefix': {'img': 'v/'}},
        ),
    ],
)
def test_paths_of_a_machine(entry: dict, plain: dict) -> None:
    assert Config.fromstring(flat_config(Config({'entry': entry})), '.py').entry == plain


def test_the_card_says_what_was_given(
    checkpoint: Path, cfg: Config, folder: Path, exported: Path, tmp_path: Path
) -> None:
    card = (folder / 'README.md').read_text(encoding='utf-8')
    assert card.startswith('---\nlicense: apache-2.0\n') and '5 classes, input 96 x 96' in card
    assert '`cat`, `dog`, `Äpfel`' in card and 'None were given' in card and 'model.onnx' not in card

    more = dict(metrics={'coco/bbox_mAP': 0.4653}, command='python tools/test.py a.py a.pth', onnx=exported)
    save_pretrained(checkpoint, tmp_path / 'new', license='mit', config=cfg, **more)
    card = (tmp_path / 'new' / 'README.md').read_text(encoding='utf-8')
    assert '| coco/bbox_mAP | 0.4653 |' in card and '\npython tools/test.py a.py a.pth\n' in card
    assert '`model.onnx` is the same detector' in card
    assert (tmp_path / 'new' / 'model.onnx').read_bytes() == exported.read_bytes()


# --- what opens it ----------------------------------------------------------------------------------------------------


def test_a_detector_comes_back(folder: Path, cfg: Config, weights: dict[str, Tensor], image: np.ndarray) -> None:
    """In evaluation, with the same detections as the one that was saved, through mmdet's own function."""
    detector = from_pretrained(str(folder))
    assert not any(module.training for module in detector.modules())
    assert detector.dataset_meta == {'classes': CLASSES, 'palette': PALETTE}
    own = MODELS.build(cfg.model).eval()
    own.load_state_dict(weights)
    own.cfg = cfg
    actual, expected = (inference_detector(model, image).pred_instances for model in (detector, own))
    assert len(actual.scores) == len(expected.scores) > 0
    assert torch.equal(actual.scores, expected.scores) and torch.equal(actual.bboxes, expected.bboxes)


def test_it_trains_from_its_weights(folder: Path, weights: dict[str, Tensor]) -> None:
    """``init_weights``, which a runner calls first, leaves them as they are."""
    detector = from_pretrained(folder)
    detector.init_weights()
    assert all(torch.equal(value, weights[key]) for key, value in detector.state_dict().items())
    detector.train()
    loss, _ = detector.parse_losses(detector.loss(*random_batch([2, 1], 64, 64)))
    loss.backward()
    assert all(value.grad is not None for value in detector.bbox_head.decoder.layers.parameters())


def test_mmdet_opens_the_files_by_itself(folder: Path, weights: dict[str, Tensor], image: np.ndarray) -> None:
    """As of any config and checkpoint: safetensors are a format that mmengine loads with this package imported."""
    config, file = str(folder / 'config.py'), str(folder / 'model.safetensors')
    detector = init_detector(config, file, device='cpu')
    assert tuple(detector.dataset_meta['classes']) == CLASSES
    assert all(torch.equal(value, weights[key]) for key, value in detector.state_dict().items())
    inferencer = DetInferencer(config, file, device='cpu', show_progress=False)
    [predictions] = inferencer(image[..., ::-1], no_save_vis=True)['predictions']
    expected = inference_detector(from_pretrained(folder), image[..., ::-1]).pred_instances
    assert predictions['scores'] == about(expected.scores.tolist(), 'unit')
    load_checkpoint(MODELS.build(Config.fromfile(config).model), file, strict=True)


def test_a_model_is_saved_as_its_checkpoint_is(folder: Path, cfg: Config, tmp_path: Path) -> None:
    detector = from_pretrained(folder)
    assert save_pretrained(detector, tmp_path / 'again', license='apache-2.0')
    for name in FILES - {'README.md'}:
        assert (tmp_path / 'again' / name).read_bytes() == (folder / name).read_bytes()
    del detector.cfg
    with pytest.raises(InputError, match=r'give the config'):
        save_pretrained(detector, tmp_path / 'other', license='mit')


# --- called again -----------------------------------------------------------------------------------------------------


def state_of(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


def test_called_again_it_does_nothing_and_another_model_is_refused(
    checkpoint: Path, cfg: Config, weights: dict[str, Tensor], exported: Path, tmp_path: Path
) -> None:
    path, call = tmp_path / 'pets', dict(license='mit', config=cfg)
    assert save_pretrained(checkpoint, path, onnx=exported, **call)
    (path / '.gitattributes').write_text('mine')
    before = state_of(path)
    assert not save_pretrained(checkpoint, path, onnx=exported, **call)
    assert state_of(path) == before

    torch.save({key: value + 1 for key, value in weights.items()}, tmp_path / 'other.pth')
    with pytest.raises(InputError, match=r'pets holds README\.md, model\.safetensors, model\.onnx of something else'):
        save_pretrained(tmp_path / 'other.pth', path, **call)
    assert state_of(path) == before
    assert save_pretrained(tmp_path / 'other.pth', path, force=True, **call)
    assert {item.name for item in path.iterdir()} == {*FILES, '.gitattributes'}  # the graph was the other model's
    other = from_pretrained(path).state_dict()
    assert all(torch.equal(value, weights[key] + 1) for key, value in other.items())
    (path / 'README.md').unlink()
    assert save_pretrained(tmp_path / 'other.pth', path, **call) and {*FILES} < {item.name for item in path.iterdir()}


@pytest.mark.parametrize('there', [False, True])
def test_an_interrupted_write_leaves_nothing_half(
    there: bool, checkpoint: Path, cfg: Config, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk, and a kill, which cleans nothing up, after the first bytes of the weights."""
    path = tmp_path / 'pets'
    if there:
        path.mkdir()
        (path / 'config.py').write_text('mine = 1')

    def full(path: Path, **others: Any) -> None:
        path.write_bytes(b'half')
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(hub, 'write_safetensors', full)
    with pytest.raises(InputError, match=r'cannot write .*pets: .*No space left'):
        save_pretrained(checkpoint, path, license='mit', config=cfg, force=True)
    assert [item.name for item in tmp_path.rglob('*')] == (['pets', 'config.py'] if there else [])

    monkeypatch.setattr(hub, 'write_safetensors', lambda path, **others: os._exit(9))
    child = os.fork() if hasattr(os, 'fork') else pytest.skip('no fork')
    if child == 0:
        save_pretrained(checkpoint, path, license='mit', config=cfg, force=True)
    assert os.waitpid(child, 0)[1] >> 8 == 9
    assert not there or (path / 'config.py').read_text() == 'mine = 1'
    assert not (path / 'model.safetensors').exists()
    monkeypatch.undo()
    assert save_pretrained(checkpoint, path, license='mit', config=cfg, force=True)
    assert {item.name for item in path.iterdir()} == FILES and [*tmp_path.iterdir()] == [path]
    assert (path / 'model.safetensors').read_bytes() == (folder / 'model.safetensors').read_bytes()


# --- bad input --------------------------------------------------------------------------------------------------------


def test_what_cannot_be_saved_is_refused_and_nothing_written(
    checkpoint: Path, cfg: Config, weights: dict[str, Tensor], tmp_path: Path
) -> None:
    def refused(message: str, model: Any = checkpoint, **changes: Any) -> None:
        with pytest.raises(InputError, match=message) as caught:
            save_pretrained(model, tmp_path / 'new', **{'license': 'mit', 'config': cfg, **changes})
        assert '\n' not in str(caught.value) and not (tmp_path / 'new').exists()

    (tmp_path / 'page.onnx').write_text('<html>')
    same = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    others = [
        write_model(tmp_path / f'{name}.onnx', format_changes=changes)
        for name, changes in (
            ('other', {'checkpoint_sha256': 'abc'}),
            ('no', {}),
            ('config', {'checkpoint_sha256': same, 'config': 'b.py'}),
        )
    ]
    refused("licence must be one of the Hub's identifiers", license='')
    refused("licence must be one of the Hub's identifiers", license='mit\ntags: [x]')
    refused(r"such as apache-2\.0, .*or other, got 'Apache 2\.0'", license='Apache 2.0')
    refused(r"such as .*gpl-3\.0.*, or other, got 'GPLv3'", license='GPLv3')
    refused(r'there is no file .*gone\.pth', tmp_path / 'gone.pth')
    refused(r'there is no file .*gone\.onnx', onnx=tmp_path / 'gone.onnx')
    refused(
        r'other\.onnx is not of .*epoch_3\.pth, but of another checkpoint \(SHA-256 abc\); export this', onnx=others[0]
    )
    refused(r'no\.onnx is not of .* \(SHA-256 none that it names\)', onnx=others[1])
    refused(
        r'config\.onnx was exported with the config b\.py, and rtdetr_r18\S*\.py is saved; name one', onnx=others[2]
    )
    refused(r'page\.onnx is not an ONNX file', onnx=tmp_path / 'page.onnx')
    refused('cannot read the config', config=tmp_path / 'gone.py')
    refused('does not fit the model', config=shipped_config('rtdetr/rtdetr_r34vd_8xb2-72e_coco.py'))
    other = Config(cfg.to_dict())
    other.test_dataloader.dataset.metainfo = dict(classes=CLASSES[:2])
    torch.save(weights, tmp_path / 'bare.pth')
    refused('has 5 classes, but 2 have names', tmp_path / 'bare.pth', config=other)
    (tmp_path / 'file').write_text('')
    with pytest.raises(InputError, match='is a file; name a folder'):
        save_pretrained(checkpoint, tmp_path / 'file', license='mit', config=cfg)


@pytest.mark.parametrize(
    'text',
    [
        'import os\nmodel = dict()',
        'model = dict(type=__import__("os"))',
        'model = dict(**{"a": 1})',
        'model = dict({**{}})',
        'model = dict([("a", 1)])',
        'model = dict({"a": print()})',
        'model = [x for x in (1, 2)]',
        'for i in (1,): pass',
        'a.b = 1',
        'model = dict(',
        'model = {**{}}',
    ],
)
def test_a_config_that_holds_code_is_not_run(text: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r'no config of plain values, and is not run'):
        parse_flat_config(text, tmp_path / 'config.py')


@pytest.mark.parametrize('name', config_names())
def test_every_shipped_config_is_read_back_whole(name: str, tmp_path: Path) -> None:
    """Also where names of parameter groups are paths of modules, as those of the ViTs are."""
    cfg = shipped_config(name)
    assert parse_flat_config(cfg.pretty_text, tmp_path / 'config.py').to_dict() == cfg.to_dict()


@pytest.mark.parametrize('kind', ['os.system', 'mmengine.dump', 'builtins.eval', 'mmdet.os', 'a b', 'print()'])
def test_types_are_looked_up_and_never_imported(kind: str, tmp_path: Path) -> None:
    (tmp_path / 'config.py').write_text(f"test_pipeline = [dict(type='{kind}', command='exit')]")
    with pytest.raises(InputError, match=r'asks for the type .*which no registry knows'):
        read_flat_config(tmp_path / 'config.py')
    (tmp_path / 'config.py').write_text("model = dict(type='mmdet.DINO', norm=dict(type='BN'), a=-1.5, b={'x y': {1}})")
    assert read_flat_config(tmp_path / 'config.py').model.b == {'x y': {1}}
    (tmp_path / 'config.py').write_text("custom_imports = dict(imports=['no_such_module'])")
    with pytest.raises(InputError, match='needs a module that cannot be imported here'):
        read_flat_config(tmp_path / 'config.py')


def test_what_cannot_be_opened_is_refused(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(message: str, **changes: bytes | None) -> None:
        broken = tmp_path / 'broken'
        broken.mkdir(exist_ok=True)
        for name in FILES:
            content = changes.get(name.partition('.')[0], (folder / name).read_bytes())
            (broken / name).unlink(missing_ok=True)
            if content is not None:
                (broken / name).write_bytes(content)
        with pytest.raises(InputError, match=message) as caught:
            from_pretrained(broken)
        assert '\n' not in str(caught.value)

    whole = (folder / 'model.safetensors').read_bytes()
    refused(r'has no config\.py: it was not written by', config=None)
    refused(r'has no model\.safetensors', model=None)
    refused('cut short or no safetensors file', model=whole[:-1])
    text = (folder / 'config.py').read_text(encoding='utf-8')
    refused('does not fit the model', config=text.replace('depth=18', 'depth=34').encode())
    refused('cannot build its detector', config=text.replace('depth=18', 'depth=18, of_later=1').encode())

    content = read_checkpoint(folder)['state_dict']
    for notes, message in (({}, 'does not name its classes'), ({'format': 2}, 'does not name its classes')):
        write_safetensors(tmp_path / 'a', content, notes)
        refused(message, model=(tmp_path / 'a').read_bytes())
    newer = {**read_notes(folder / 'model.safetensors'), 'format': 2, 'package_version': '9.0'}
    write_safetensors(tmp_path / 'a', content, newer)
    refused(r'was written by mmdet_iouquery 9\.0, whose format 2 is unknown', model=(tmp_path / 'a').read_bytes())
    with pytest.raises(InputError, match='there is no folder nowhere, and no repository is called so'):
        from_pretrained('nowhere')
    monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
    with pytest.raises(InputError, match=r'there is no folder me/nowhere, .*python -m pip install huggingface_hub'):
        from_pretrained('me/nowhere')
    from_pretrained(folder)  # needs nothing of the network
    monkeypatch.setitem(sys.modules, 'safetensors', None)
    with pytest.raises(InputError, match='python -m pip install safetensors'):
        from_pretrained(folder)


# --- the Hub, a stand-in of it on this machine ------------------------------------------------------------------------


class Repository:
    """What ``push_to_hub`` asks of an HfApi, of one repository held in memory."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        """A call, of which a real HfApi takes the arguments."""
        real, own = (
            getattr(pytest.importorskip('huggingface_hub').HfApi, name),
            object.__getattribute__(self, f'_{name}'),
        )

        def call(*arguments: Any, **options: Any) -> Any:
            inspect.signature(real).bind(self, *arguments, **options)
            self.calls.append(name)
            return own(*arguments, **options)

        return call

    def _create_repo(self, repo: str, private: bool | None, exist_ok: bool) -> None:
        assert repo == 'me/pets' and exist_ok

    def _model_info(self, repo: str, files_metadata: bool) -> Any:
        def sibling(name: str, content: bytes) -> SimpleNamespace:
            large = name.endswith(('.safetensors', '.onnx'))
            lfs = SimpleNamespace(sha256=hashlib.sha256(content).hexdigest()) if large else None
            blob = hashlib.sha1(f'blob {len(content)}\0'.encode() + content).hexdigest()
            return SimpleNamespace(rfilename=name, lfs=lfs, blob_id='pointer' if large else blob)

        return SimpleNamespace(siblings=[sibling(*item) for item in self.files.items()])

    def _upload_folder(
        self, *, repo_id: str, folder_path: Path, allow_patterns: list, delete_patterns: list, commit_message: str
    ) -> None:
        self.files = {name: content for name, content in self.files.items() if name not in delete_patterns}
        self.files.update({name: (folder_path / name).read_bytes() for name in allow_patterns})


def test_push(folder: Path, tmp_path: Path, checkpoint: Path, cfg: Config, weights: dict[str, Tensor]) -> None:
    api = Repository()
    api.files['.gitattributes'] = b'theirs'
    (folder / 'notes.txt').write_text('not sent')
    assert push_to_hub(folder, 'me/pets', api=api)
    (folder / 'notes.txt').unlink()
    assert api.files == {'.gitattributes': b'theirs', **{name: (folder / name).read_bytes() for name in FILES}}
    assert not push_to_hub(folder, 'me/pets', api=api) and api.calls.count('upload_folder') == 1

    torch.save({key: value + 1 for key, value in weights.items()}, tmp_path / 'other.pth')
    save_pretrained(tmp_path / 'other.pth', tmp_path / 'other', license='mit', config=cfg)
    before = dict(api.files)
    with pytest.raises(InputError, match='me/pets holds other weights'):
        push_to_hub(tmp_path / 'other', 'me/pets', api=api)
    assert api.files == before
    assert push_to_hub(tmp_path / 'other', 'me/pets', api=api, force=True)
    assert api.files['model.safetensors'] == (tmp_path / 'other' / 'model.safetensors').read_bytes()
    api.files['model.onnx'] = b'of the first'
    assert push_to_hub(tmp_path / 'other', 'me/pets', api=api) and 'model.onnx' not in api.files


def test_push_refuses(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match='not written by save_pretrained'):
        push_to_hub(tmp_path, 'me/pets', api=Repository())
    with pytest.raises(InputError, match="a repository must be named USER/NAME, got 'pets'"):
        push_to_hub(folder, 'pets', api=Repository())

    def away(*arguments: Any, **options: Any) -> None:
        raise ConnectionError('no route to host')

    for name, message in (('create_repo', 'cannot reach me/pets'), ('upload_folder', 'cannot send .*pets to me/pets')):
        api = Repository()
        monkeypatch.setattr(api, name, away, raising=False)
        with pytest.raises(InputError, match=f'{message}: ConnectionError: no route to host'):
            push_to_hub(folder, 'me/pets', api=api)
    monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
    with pytest.raises(InputError, match='python -m pip install huggingface_hub'):
        push_to_hub(folder, 'me/pets')


@pytest.fixture
def endpoint(folder: Path) -> Iterator[str]:
    """The few addresses of the Hub that a download asks for, on this machine."""
    commit = '0123456789abcdef0123456789abcdef01234567'

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = self.path.partition('?')[0].strip('/').split('/')
            if parts[:5] == ['api', 'models', 'me', 'pets', 'tree']:  # releases differ in which they ask
                files = [{'type': 'file', 'path': name, 'oid': '0', 'size': 0} for name in (*FILES, 'other.bin')]
                return self.answer(json.dumps(files).encode())
            if parts[:4] == ['api', 'models', 'me', 'pets']:
                siblings = [{'rfilename': name} for name in (*FILES, 'other.bin')]
                return self.answer(json.dumps({'id': 'me/pets', 'sha': commit, 'siblings': siblings}).encode())
            if parts[:4] == ['me', 'pets', 'resolve', commit] and parts[4] in FILES:
                return self.answer((folder / parts[4]).read_bytes())
            return self.answer(b'', 404, [('X-Error-Code', 'RepoNotFound')])

        do_HEAD = do_GET  # noqa: N815  the base class's name

        def answer(self, content: bytes, status: int = 200, headers: Any = ()) -> None:
            self.send_response(status)
            etag = hashlib.sha256(content).hexdigest()
            for header in (
                ('Content-Length', len(content)),
                ('ETag', f'"{etag}"'),
                ('X-Repo-Commit', commit),
                *headers,
            ):
                self.send_header(header[0], str(header[1]))
            self.end_headers()
            if self.command == 'GET':
                self.wfile.write(content)

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(('127.0.0.1', 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f'http://127.0.0.1:{server.server_address[1]}'
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_repository_opens(endpoint: str, tmp_path: Path, weights: dict[str, Tensor]) -> None:
    api = pytest.importorskip('huggingface_hub').HfApi(endpoint=endpoint, token=False)
    detector = from_pretrained('me/pets', cache_dir=tmp_path, api=api)
    assert detector.dataset_meta['classes'] == CLASSES
    assert all(torch.equal(value, weights[key]) for key, value in detector.state_dict().items())
    assert not [*tmp_path.rglob('other.bin')]
    with pytest.raises(InputError, match=r'cannot fetch me/others: \w+: '):
        from_pretrained('me/others', cache_dir=tmp_path, api=api)


# --- the tool ---------------------------------------------------------------------------------------------------------


def test_the_tool(
    checkpoint: Path, cfg: Config, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture, load_tool: Any
) -> None:
    tool, config = load_tool('hub'), tmp_path / 'a.py'
    cfg.dump(config)
    (tmp_path / 'e.metrics.json').write_text('{"coco/bbox_mAP": 0.25}')
    command = ['save', str(config), str(checkpoint), str(tmp_path / 'new'), '--license', 'mit']
    assert tool.main([*command, '--metrics', str(tmp_path / 'e.metrics.json'), '--command', 'typed']) == 0
    assert "from_pretrained('" in capsys.readouterr().out
    card = (tmp_path / 'new' / 'README.md').read_text(encoding='utf-8')
    assert card.split('---\n')[2].startswith('\n# a\n') and '| coco/bbox_mAP | 0.25 |' in card and '\ntyped\n' in card
    assert (tmp_path / 'new' / 'model.safetensors').read_bytes() == (folder / 'model.safetensors').read_bytes()
    assert tool.main([*command, '--metrics', str(tmp_path / 'e.metrics.json'), '--command', 'typed']) == 0
    assert 'holds this detector already' in capsys.readouterr().out
    (tmp_path / 'e.metrics.json').write_text('["no metrics"]')
    for mistake, message in (
        (command, 'of something else'),
        ([*command, '--metrics', str(tmp_path / 'e.metrics.json')], 'must hold names and numbers'),
        ([*command, '--metrics', 'gone.json'], 'cannot read metrics from gone.json'),
        (['push', str(tmp_path), 'me/pets'], 'not written by save_pretrained'),
    ):
        assert tool.main(mistake) == 2
        error = capsys.readouterr().err
        assert error.startswith('error: ') and message in error and error.count('\n') == 1
    with pytest.raises(SystemExit) as left:
        tool.main(command[:4])
    assert left.value.code == 2 and '--license' in capsys.readouterr().err


def test_a_work_folder_is_saved_under_its_name_and_tested_on_data_that_is_named(
    checkpoint: Path, cfg: Config, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture, load_tool: Any
) -> None:
    (tmp_path / 'run').mkdir()
    cfg.dump(tmp_path / 'run' / 'config.py')
    shutil.copy(checkpoint, tmp_path / 'run' / 'epoch_3.pth')
    new = tmp_path / 'new'
    assert load_tool('hub').main(['save', str(tmp_path / 'run'), '--license', 'mit', str(new)]) == 0
    assert f'{tmp_path / "run"} stands for' in capsys.readouterr().out
    card = (new / 'README.md').read_text(encoding='utf-8')
    assert '\n# run\n' in card and f'iouquery test FOLDER --cfg-options {DATA_OPTIONS}\n' in card
    assert (new / 'model.safetensors').read_bytes() == (folder / 'model.safetensors').read_bytes()

    assert load_tool('test').main([str(new), '--work-dir', str(tmp_path / 'test')]) == 2
    output = capsys.readouterr().err
    assert f'{new / "config.py"} is the config of a shared detector' in output and DATA_OPTIONS in output
    named = DATA_OPTIONS.replace('/DATA', str(tmp_path)).split()
    (tmp_path / 'val.json').write_text('[]')
    assert load_tool('test').main([str(new), '--work-dir', str(tmp_path / 'test'), '--cfg-options', *named]) == 2
    assert f'test_dataloader.dataset: {tmp_path / "val.json"}' in capsys.readouterr().err, 'the data are looked at'
