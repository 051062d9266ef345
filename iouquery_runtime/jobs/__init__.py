"""Detections for as many images as there are, on one machine or many."""
