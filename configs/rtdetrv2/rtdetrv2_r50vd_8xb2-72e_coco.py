"""RT-DETRv2-L: RT-DETR-R50 with points per level and a plain last epoch. 53.4 AP on COCO val2017 by the authors."""

_base_ = '../rtdetr/rtdetr_r50vd_8xb2-72e_coco.py'

stop_epoch = 71  # from here on neither colours, expansion and crop nor multi-scale
plain_pipeline = [step for step in _base_.train_pipeline if step['type'] not in ('DistortColours', 'ExpandAndCrop')]

model = dict(
    data_preprocessor=dict(
        batch_augments=[dict(type='BatchMultiScale', sizes=_base_.multi_scale, stop_epoch=stop_epoch)]
    ),
    bbox_head=dict(
        init_cfg=dict(type='Xavier', layer='Conv2d', distribution='uniform'),  # the projections of the neck's maps
        decoder=dict(num_points=[4, 4, 4], ffn_init='xavier'),
    ),
)
optim_wrapper = dict(
    paramwise_cfg=dict(authors_rules=[dict(pattern='^(neck|bbox_head)(?!.*norm).*bias$', decay=True)]),
)
param_scheduler = [dict(_base_.param_scheduler[0], start_factor=1 / _base_.warmup_iters)]
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='PipelineSwitchHook', switch_epoch=stop_epoch, switch_pipeline=plain_pipeline),
]
