"""From a trained detector to one that predicts fast, here or in another runtime."""

from .export import ExportReport, ExportSettings, export_onnx
from .metadata import ModelSource
from .prepare import prepare_for_inference

__all__ = ['ExportReport', 'ExportSettings', 'ModelSource', 'export_onnx', 'prepare_for_inference']
