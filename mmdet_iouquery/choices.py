"""Values that arguments can have by name. Command lines name them too, before anything heavy is imported."""

from __future__ import annotations

from pathlib import Path

AUTHORS = ('rtdetr', 'rtdetrv2', 'dfine', 'deim', 'rtdetrv4', 'deimv2', 'ecdet')
"""Projects whose checkpoints can be read and written: the authors' of each model."""

SOURCES = (*AUTHORS, 'transformers', 'dab_detr', 'rtdetr_backbone', 'hgnetv2_backbone', 'vit_backbone', 'mmdet')
"""The authors' RT-DETR and RT-DETRv2; D-FINE; DEIM, on D-FINE or on RT-DETRv2; RT-DETRv4; DEIMv2; EdgeCrafter's
ECDet; Hugging Face's; the authors' DAB-DETR; the authors' bare ResNet-vd; a bare HGNetv2 of D-FINE's and DEIM's authors
or of timm, whose names are the same; a bare ViT of DEIMv2's, EdgeCrafter's or DINOv3's authors or of Hugging Face's
DINOv3; our own names, as mmdet saves them."""

TARGETS = ('mmdet', *AUTHORS, 'transformers')
"""Our own names; the authors'; Hugging Face's."""

ATTENTIONS = ('grid_sample', 'gather')
"""How deformable attention reads in an exported file."""

EXPORTERS = ('torchscript', 'dynamo')
"""torch's, to ONNX."""

INPUTS = ('float32-nchw', 'uint8-nhwc')
"""What an exported file takes."""

OPSETS = (17, 18, 19, 20)
"""Of ONNX, that files are exported in."""

PRECISIONS = ('float32', 'float16')
"""That an exported file computes in."""

EXPORTED = ('.onnx', '.xml')
"""Endings of exported files: of ONNX, and of OpenVINO."""


def is_exported(path: str | Path) -> bool:
    """Whether a file is one that was exported, by its name."""
    return Path(path).suffix.lower() in EXPORTED
