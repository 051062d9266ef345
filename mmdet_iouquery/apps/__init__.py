"""Programs over the plugin, a folder each: what ``tools/`` and ``python -m mmdet_iouquery.doctor`` open.

An app may use another one. Nothing outside this folder imports an app, but for the doors that start one.
"""
