"""Exported files from a command line."""
