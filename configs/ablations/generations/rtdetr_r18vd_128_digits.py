"""RT-DETR, the quickstart's own: what the others of this folder are compared with."""

_base_ = '../../quickstart/rtdetr_r18vd_digits.py'
