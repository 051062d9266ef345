"""Objects365 (version 2) in place of COCO's files, with the same pipelines.

Bases may not name the same entries, so these have names of their own; a config takes them out with ``_base_.pop``.
"""

objects365_root = 'data/Objects365/Obj365_v2/'

objects365_train = dict(
    dataset=dict(
        type='Objects365V2Dataset',
        data_root=objects365_root,
        ann_file='annotations/zhiyuan_objv2_train.json',
        data_prefix=dict(img='train/'),
    )
)
objects365_val = dict(
    dataset=dict(
        type='Objects365V2Dataset',
        data_root=objects365_root,
        ann_file='annotations/zhiyuan_objv2_val.json',
        data_prefix=dict(img='val/'),
    )
)
objects365_evaluator = dict(ann_file=objects365_root + 'annotations/zhiyuan_objv2_val.json')
