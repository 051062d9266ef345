"""What DEIM (Huang et al. 2025) changes in D-FINE and RT-DETRv2: the class loss, SiLU, the rate and the images.

Bases may not name the same entries, so these have names of their own; a config takes them out with ``_base_.pop``.
"""

silu = dict(type='SiLU')
matchability_aware = dict(criterion=dict(loss_cls=dict(_delete_=True, type='MatchabilityAwareLoss', gamma=1.5)))

whole_backbone = dict(frozen_stages=-1, norm_cfg=dict(type='BN', requires_grad=True), norm_eval=False)

deim_dfine_model = dict(
    backbone=whole_backbone,
    bbox_head=dict(query_selector=dict(act_cfg=silu), decoder=dict(act_cfg=silu), **matchability_aware),
)
deim_rtdetrv2_model = dict(
    backbone=whole_backbone,
    bbox_head=dict(
        query_selector=dict(act_cfg=silu),
        decoder=dict(act_cfg=silu, query_pos=dict(hidden_dims=256, num_layers=3, act_cfg=silu)),
        **matchability_aware,
    ),
)

# the authors' groups of parameters: on D-FINE-S and -M (N, L and X have D-FINE's), and on RT-DETRv2
deim_dfine_authors_rules = [
    dict(pattern='norm', decay=False, lr_mult=1.0),
    dict(pattern='bias$|affine', decay=True),
]
deim_rtdetrv2_authors_rules = [
    dict(pattern='^(neck|bbox_head)(?!.*norm).*bias$', decay=True),
    # the backbone's norms, at the head's rate
    dict(pattern=r'^backbone\.(stem\.[147]|.*bn|layer1.*downsample\.1|layer[234].*downsample\.2)', lr_mult=1.0),
]

# flat_end and decay_end are the sizes' own
flat_cosine = dict(type='FlatCosineLR', warmup_iters=2000, convert_to_iter_based=True)

# "dense one-to-one": more boxes an image, from epoch 4 to half-way
deim_mix_up = dict(type='BatchMixUp', prob=0.5, stages=['mosaic'])
deim_loading = [
    dict(type='LoadImageFromFile', _scope_='mmdet_iouquery', on_error='skip'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='CleanBoxes'),
]
colours = dict(type='DistortColours')
expand_and_crop = dict(type='ExpandAndCrop', ratio_range=(1, 4), expand_prob=0.5, crop_prob=0.8)
mosaic_or_strong = dict(
    type='RandomChoice',
    transforms=[[dict(type='QuarterMosaic', short_side=320), colours], [colours, expand_and_crop]],
    prob=[0.5, 0.5],
)
deim_dataset = dict(
    _delete_=True,
    type='MultiImageDataset',
    pipeline=[
        dict(type='InStages', stages=['mosaic'], transforms=[mosaic_or_strong]),
        dict(type='InStages', stages=['strong'], transforms=[colours, expand_and_crop]),
        dict(type='FilterAnnotations', min_gt_bbox_wh=(1, 1), keep_empty=False),
        dict(type='RandomFlip', prob=0.5),
        dict(type='AntialiasedResize', scale=(640, 640), keep_ratio=False),
        dict(type='FilterAnnotations', min_gt_bbox_wh=(1, 1), keep_empty=False),
        dict(type='PackDetInputs'),
    ],
)
