"""Training by a config's short name, on a folder of data: ``iouquery train``."""
