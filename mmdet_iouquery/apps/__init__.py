"""Programs over the plugin, a folder each: what the command ``iouquery`` runs.

An app may use another one. Nothing outside this folder imports an app, but for the commands that start one.
"""
