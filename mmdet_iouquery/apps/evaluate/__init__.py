"""COCO's numbers of detections that were written down."""
