"""D-FINE-N, on maps of stride 8 and 16."""

_base_ = '../../quickstart/dfine_hgnetv2-n_digits.py'
