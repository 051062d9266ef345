"""Detections for as many images as there are, on one machine or many.

``python -m iouquery_runtime.jobs`` is the command; from Python

::

    from pathlib import Path
    from iouquery_runtime.jobs.predict import Request, predict
    from iouquery_runtime.jobs.worker import ExportedOpener

    predict(Request(images='photos/', out=Path('found')), ExportedOpener('model.onnx'))
"""
