"""DEIM's class loss, and half of the queries, whose steps take less time: the quickstart's 900 in that of 800."""

_base_ = '../../quickstart/rtdetr_r18vd_digits.py'
