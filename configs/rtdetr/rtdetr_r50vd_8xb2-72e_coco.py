"""RT-DETR-R50: 53.1 AP on COCO val2017 in the paper."""

_base_ = [
    '../_base_/models/rtdetr_r50vd.py',
    '../_base_/datasets/coco_detection.py',
    '../_base_/schedules/schedule_72e.py',
    '../_base_/default_runtime.py',
]
