"""Scores that say how often a detection is right: what ``tools/calibrate.py`` does."""
