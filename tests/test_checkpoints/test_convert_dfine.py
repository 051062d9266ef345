"""Names of the authors' D-FINE beside ours."""

from __future__ import annotations

import json
from pathlib import Path

from mmdet.registry import MODELS

from mmdet_iouquery.checkpoints.dfine import encoder_pairs
from mmdet_iouquery.checkpoints.names import PrefixMap

DATA = Path(__file__).resolve().parents[1] / 'data'


def test_every_weight_of_the_neck_has_a_name_on_both_sides() -> None:
    names = PrefixMap(encoder_pairs(), "the authors' D-FINE")
    keys = json.loads((DATA / 'dfine_n_320x320.keys.json').read_text())
    theirs = {key: shape for key, shape in keys.items() if key.startswith('encoder.')}
    neck = MODELS.build(
        {
            'type': 'HybridEncoder',
            'in_channels': (512, 1024),
            'out_channels': 128,
            'feedforward_channels': 512,
            'expansion': 0.34,
            'num_fusion_blocks': 2,
            'fusion': 'elan',
            'downsample': 'separable',
            'lateral_act': False,
        }
    )
    ours = {f'neck.{key}': list(value.shape) for key, value in neck.state_dict().items()}
    assert len(theirs) > 200
    assert {names.to_ours(key): shape for key, shape in theirs.items()} == ours
    assert {names.to_theirs(key): shape for key, shape in ours.items()} == theirs
