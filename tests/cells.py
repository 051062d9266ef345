"""Which part runs in which detector: the list that the tests run and that the table in ``docs/swaps.md`` is made from.

Plain data: whoever reads it needs neither torch nor mmdet.
"""

from __future__ import annotations

from typing import NamedTuple

PARTS = ('IoU-aware selector', 'DAB decoder', 'varifocal', 'MAL', 'denoising', 'hybrid encoder')
HEAD_PARTS = PARTS[:5]

OWN = 'own'
"""The part is the host's own."""
WHOLE_HEAD = 'whole head'
"""RTDETRHead stands in place of the host's head and brings the part along."""
NMS_AT_PREDICTION = (
    "the host's own NMS needs mmcv's compiled operators at prediction; with `test_cfg.nms=None` none is run"
)
"""Training runs without compiled operators, prediction does not."""
NMS_AT_TRAINING = "the host's own NMS needs mmcv's compiled operators, in training as well"
"""Nothing runs without compiled operators."""


class Cell(NamedTuple):
    """One part in one host."""

    host: str
    part: str
    config: str | None
    """The shipped config; None: the pair makes no sense."""
    note: str
    """One of the words above; without a config the reason; otherwise what has to be known, or nothing."""


ONE_MAP = 'one map leaves no scales to fuse, and attention within a map is what its own encoder does'


def transformer(host: str, stem: str, without: str = '', note: str = '', own: str = '') -> list[Cell]:
    """A detection transformer's row.

    Args:
        stem: the configs' name, with %s where the part stands.
        without: the part that there is no config for.
        note: what has to be known of all of them.
        own: the part that the host has itself, of which there is a config with this package's all the same.
    """
    words = dict(zip(PARTS, ('iou-aware-selector', 'dab-decoder', 'varifocal', 'mal', 'denoising', 'hybrid-encoder')))
    notes = {part: OWN if part == own else note for part in PARTS}
    return [Cell(host, part, stem % word, notes[part]) for part, word in words.items() if part != without]


def single_stage(host: str, rtdetr_head: str, hybrid_encoder: str) -> list[Cell]:
    """A dense detector's row: RT-DETR's head is swapped in as one, its parts then within it."""
    heads = [Cell(host, part, rtdetr_head, WHOLE_HEAD) for part in HEAD_PARTS]
    return [*heads, Cell(host, 'hybrid encoder', hybrid_encoder, NMS_AT_PREDICTION)]


CELLS = [
    Cell('RT-DETR R18..R101', 'IoU-aware selector', 'rtdetr/rtdetr_r18vd_8xb2-72e_coco.py', OWN),
    Cell('RT-DETR R18..R101', 'DAB decoder', 'rtdetr/rtdetr_r18vd_dab-decoder_8xb2-72e_coco.py', ''),
    Cell('RT-DETR R18..R101', 'varifocal', 'rtdetr/rtdetr_r18vd_8xb2-72e_coco.py', OWN),
    Cell('RT-DETR R18..R101', 'MAL', 'rtdetr/rtdetr_r18vd_mal_8xb2-72e_coco.py', ''),
    Cell('RT-DETR R18..R101', 'denoising', 'rtdetr/rtdetr_r18vd_8xb2-72e_coco.py', OWN),
    Cell('RT-DETR R18..R101', 'hybrid encoder', 'rtdetr/rtdetr_r18vd_8xb2-72e_coco.py', OWN),
    *transformer('DINO', 'dino/dino-4scale_r50_%s_8xb2-12e_coco.py', without='denoising'),
    Cell('DINO', 'denoising', None, OWN),
    *transformer(
        'Deformable DETR (two-stage)',
        'deformable_detr/deformable-detr-refine-twostage_r50_%s_16xb2-50e_coco.py',
    ),
    *transformer('DDQ-DETR', 'ddq/ddq-detr-4scale_r50_%s_8xb2-12e_coco.py', without='denoising', note=NMS_AT_TRAINING),
    Cell('DDQ-DETR', 'denoising', None, OWN),
    *transformer('DAB-DETR', 'dab_detr/dab-detr_r50_%s_8xb2-50e_coco.py', without='hybrid encoder', own='DAB decoder'),
    Cell('DAB-DETR', 'hybrid encoder', None, ONE_MAP),
    *transformer(
        'Conditional DETR', 'conditional_detr/conditional-detr_r50_%s_8xb2-50e_coco.py', without='hybrid encoder'
    ),
    Cell('Conditional DETR', 'hybrid encoder', None, ONE_MAP),
    *transformer('DETR', 'detr/detr_r50_%s_8xb2-150e_coco.py', without='hybrid encoder'),
    Cell('DETR', 'hybrid encoder', None, ONE_MAP),
    *single_stage(
        'RetinaNet',
        'retinanet/retinanet_r50_rtdetr-head_8xb2-1x_coco.py',
        'retinanet/retinanet_r50_hybrid-encoder_8xb2-1x_coco.py',
    ),
    *single_stage(
        'FCOS',
        'fcos/fcos_r50-caffe_rtdetr-head_8xb2-1x_coco.py',
        'fcos/fcos_r50-caffe_hybrid-encoder_gn-head_8xb2-1x_coco.py',
    ),
    *single_stage(
        'ATSS',
        'atss/atss_r50_rtdetr-head_8xb2-1x_coco.py',
        'atss/atss_r50_hybrid-encoder_8xb2-1x_coco.py',
    ),
    *single_stage(
        'RTMDet',
        'rtmdet/rtmdet_s_rtdetr-head_8xb32-300e_coco.py',
        'rtmdet/rtmdet_s_hybrid-encoder_8xb32-300e_coco.py',
    ),
    *single_stage(
        'YOLOX',
        'yolox/yolox_s_rtdetr-head_8xb8-300e_coco.py',
        'yolox/yolox_s_hybrid-encoder_8xb8-300e_coco.py',
    ),
]

FURTHER = [
    Cell('RetinaNet', 'HGNetv2', 'retinanet/retinanet_hgnetv2-b0_8xb2-1x_coco.py', NMS_AT_PREDICTION),
    Cell('RTMDet', 'HGNetv2', 'rtmdet/rtmdet_s_hgnetv2-b0_8xb32-300e_coco.py', NMS_AT_PREDICTION),
    Cell('DINO', 'HGNetv2', 'dino/dino-4scale_hgnetv2-b4_8xb2-12e_coco.py', ''),
    Cell('RetinaNet', 'ViT adapter', 'retinanet/retinanet_vit-tiny_8xb2-1x_coco.py', NMS_AT_PREDICTION),
    Cell('DINO', 'ViT adapter', 'dino/dino-4scale_ecvit-tiny_8xb2-12e_coco.py', ''),
    Cell('DINO', 'distribution decoder', 'dino/dino-4scale_r50_distribution-decoder_8xb2-12e_coco.py', ''),
    Cell(
        'Deformable DETR (two-stage)',
        'distribution decoder',
        'deformable_detr/deformable-detr-refine-twostage_r50_distribution-decoder_16xb2-50e_coco.py',
        '',
    ),
    Cell(
        'DDQ-DETR',
        'distribution decoder',
        'ddq/ddq-detr-4scale_r50_distribution-decoder_8xb2-12e_coco.py',
        NMS_AT_TRAINING,
    ),
    Cell('DINO', 'points per level', 'dino/dino-4scale_r50_points-per-level_8xb2-12e_coco.py', ''),
    Cell('RT-DETR R18..R101', 'union matching', 'rtdetr/rtdetr_r18vd_union-matching_8xb2-72e_coco.py', ''),
    Cell('RT-DETR R18', "D-FINE's neck", 'rtdetr/rtdetr_r18vd_dfine-neck_8xb2-72e_coco.py', ''),
    Cell('DINO', "D-FINE's neck", 'dino/dino-4scale_r50_dfine-neck_8xb2-12e_coco.py', ''),
    Cell('RetinaNet', "D-FINE's neck", 'retinanet/retinanet_r50_dfine-neck_8xb2-1x_coco.py', NMS_AT_PREDICTION),
    Cell('RTMDet', "D-FINE's neck", 'rtmdet/rtmdet_s_dfine-neck_8xb32-300e_coco.py', NMS_AT_PREDICTION),
    Cell('RT-DETR R18', 'DAB decoder with MAL', 'rtdetr/rtdetr_r18vd_dab-decoder-mal_8xb2-72e_coco.py', ''),
    Cell('RT-DETR R18', 'RMS norm and SwiGLU', 'rtdetr/rtdetr_r18vd_rms-swiglu-decoder_8xb2-72e_coco.py', ''),
    Cell('RT-DETR R18', 'distillation', 'rtdetr/rtdetr_r18vd_distilled_8xb2-72e_coco.py', ''),
    Cell('DINO', 'distillation', 'dino/dino-4scale_r50_distilled_8xb2-12e_coco.py', ''),
    Cell('DINO', 'mosaic and mixup', 'dino/dino-4scale_r50_dense-one-to-one_8xb2-12e_coco.py', ''),
    Cell('DINO', 'copy-blend', 'dino/dino-4scale_r50_copy-blend_8xb2-12e_coco.py', ''),
]
"""Swaps of parts that go into more detectors than there are configs for."""
