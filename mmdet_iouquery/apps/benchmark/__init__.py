"""What ``iouquery benchmark`` measures: one file a subject."""
