"""Programs over the plugin, a folder each: what the commands in ``tools/`` and ``python -m mmdet_iouquery.doctor`` run.

An app may use another one. Nothing outside this folder imports an app, but for the commands that start one.
"""
