"""Scores that say how often a detection is right: what ``iouquery calibrate`` does."""
