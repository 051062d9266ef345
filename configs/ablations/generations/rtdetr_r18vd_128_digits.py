"""RT-DETR by the recipe for the digits, for 800 steps: what the others of this folder are compared with."""

_base_ = '../../_base_/rtdetr_r18vd_digits.py'
