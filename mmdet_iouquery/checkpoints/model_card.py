"""The README of a folder of a model, as the Hugging Face Hub shows it."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ..errors import InputError

WEIGHTS = 'model.safetensors'
DATA_OPTIONS = (
    'test_dataloader.dataset.ann_file=/DATA/val.json test_dataloader.dataset.data_prefix.img=/DATA/images '
    'test_evaluator.ann_file=/DATA/val.json'
)
"""The options by which a test of a shared detector names data, for a person to fill in."""

LICENSES = frozenset(
    """
    afl-3.0 agpl-3.0 apache-2.0 apple-amlr apple-ascl artistic-2.0 bigcode-openrail-m bigscience-bloom-rail-1.0
    bigscience-openrail-m bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 c-uda cc cc-by-2.0 cc-by-2.5
    cc-by-3.0 cc-by-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0
    cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 cdla-permissive-1.0
    cdla-permissive-2.0 cdla-sharing-1.0 creativeml-openrail-m deepfloyd-if-license ecl-2.0 epl-1.0 epl-2.0 etalab-2.0
    eupl-1.1 fair-noncommercial-research-license gemma gfdl gpl gpl-2.0 gpl-3.0 grok2-community h-research
    intel-research isc lgpl lgpl-2.1 lgpl-3.0 lgpl-lr llama2 llama3 llama3.1 llama3.2 llama3.3 lppl-1.3c mit mpl-2.0
    ms-pl ncsa odbl odc-by ofl-1.1 openrail openrail++ osl-3.0 other pddl postgresql unknown unlicense wtfpl zlib
    """.split()  # noqa: SIM905
)
"""The Hub's identifiers (its documentation, "Licenses"); of one that came later: other."""


class Facts(NamedTuple):
    """What is said of a model; nothing else is."""

    name: str
    """Of its config."""
    license: str
    classes: Sequence[str]
    input_size: tuple[int, int] | None
    """Width and height that images are resized to; None: the config does not say."""
    metrics: Mapping[str, float]
    """Names of an evaluation's numbers to their values."""
    command: str | None
    """What was typed to have them."""
    has_onnx: bool


def check_license(identifier: object) -> str:
    """The identifier; :class:`InputError` unless it is one of the Hub's."""
    if not isinstance(identifier, str) or identifier not in LICENSES:
        given = str(identifier).lower().replace(' ', '-')
        near = difflib.get_close_matches(given, LICENSES, cutoff=0.5) or ['apache-2.0', 'mit']
        raise InputError(
            f"the licence must be one of the Hub's identifiers, such as {', '.join(near)}, or other, got "
            f'{identifier!r}; choose it by the licences of the data and of the weights that training began from'
        )
    return identifier


def read_metrics(path: str | Path) -> dict[str, float]:
    """The numbers that ``iouquery test --out PREFIX`` leaves in ``PREFIX.metrics.json``.

    Raises:
        InputError: there is no such file, or it holds something else.
    """
    try:
        content = json.loads(Path(path).read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise InputError(
            f'cannot read metrics from {path}: {error}; name a file that `iouquery test --out PREFIX` wrote'
        ) from error
    numbers = isinstance(content, dict) and all(
        isinstance(value, (int, float)) and not isinstance(value, bool) for value in content.values()
    )
    if not numbers or not content:
        raise InputError(
            f'{path} must hold names and numbers, as `iouquery test --out PREFIX` writes PREFIX.metrics.json'
        )
    return content


def model_card(facts: Facts) -> str:
    """The text, which is the same for the same facts."""
    size = '' if facts.input_size is None else f', input {facts.input_size[0]} x {facts.input_size[1]} (width x height)'
    sections = [
        f'---\nlicense: {facts.license}\npipeline_tag: object-detection\n'
        'tags:\n- object-detection\n- mmdet\n- mmdet_iouquery\n---',
        f'# {facts.name}',
        f'An object detector of {len(facts.classes)} classes{size}, for '
        '[MMDetection](https://github.com/open-mmlab/mmdetection) with the plugin `mmdet_iouquery`. `config.py` is its '
        'whole config, `model.safetensors` holds its weights.',
        '## Use',
        '```python\nfrom mmdet.apis import inference_detector\nfrom mmdet_iouquery import from_pretrained\n\n'
        "detector = from_pretrained('FOLDER_OR_REPO')\n"
        "detections = inference_detector(detector, 'image.jpg').pred_instances\n```",
        "On your data, in COCO's form, and to train from these weights:",
        f'```bash\niouquery test FOLDER --cfg-options {DATA_OPTIONS}\n'
        'iouquery train FOLDER/config.py --data /DATA --weights FOLDER/model.safetensors\n```',
    ]
    if facts.has_onnx:
        sections.append(
            '`model.onnx` is the same detector for runtimes of ONNX; what it takes and gives is in its metadata.'
        )
    sections += ['## Results', _results(facts)]
    sections += ['## Classes', ', '.join(f'`{name}`' for name in facts.classes)]
    return '\n\n'.join(sections) + '\n'


def _results(facts: Facts) -> str:
    if not facts.metrics:
        return 'None were given with these weights.'
    rows = '\n'.join(f'| {name} | {value:.4g} |' for name, value in facts.metrics.items())
    table = f'| metric | value |\n| --- | --- |\n{rows}'
    return table if facts.command is None else f'Measured by\n\n```bash\n{facts.command}\n```\n\n{table}'
